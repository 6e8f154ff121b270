"""Whether a model's weights fit: the bytes they need, and those that a device has free."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch

from jobs.errors import ModelError
from jobs.model_files.safetensors_header import HeaderError, header_of

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I64": 64, "U64": 64, "I32": 32, "U32": 32, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
}  # fmt: skip
_CONVERTED = ("F64", "F32", "F16", "BF16")
"""Formats of weights that loading converts to the precision's."""


def weight_bytes(files: Iterable[Path], dtype: torch.dtype) -> int:
    """Bytes that the weights of safetensors files take once they are converted to `dtype`.

    Reads the files' headers alone. Raises ValueError, with the file's path, for one that is no safetensors,
    is cut off, or cannot be read.
    """
    return sum(_converted(file, dtype) for file in files)


def _converted(file: Path, dtype: torch.dtype) -> int:
    try:
        header = header_of(file)
    except HeaderError as error:
        raise ValueError(f"{file}: {error}") from None
    return sum(
        math.prod(tensor.shape)
        * (dtype.itemsize * 8 if tensor.dtype in _CONVERTED else _BITS.get(tensor.dtype, 8))
        // 8
        for tensor in header.tensors.values()
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; on the CPU those of the machine. None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return machine_memory() if device.type == "cpu" else None


def machine_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a process may still take: what Linux calls available, within the container's own limit."""
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    control = root / "sys/fs/cgroup"
    try:
        most = int((control / "memory.max").read_text("ascii"))  # "max" without a limit
        used = int((control / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (control / "memory.stat").read_text("ascii").splitlines())
        # Files' pages count as used, and are given up when memory is needed.
        return min(available, max(0, most - used + int(stat["inactive_file"])))
    except (OSError, ValueError, KeyError):
        return available


def check_fits(
    model: str, needed: int, free: int | None, *, dtype: torch.dtype, device: torch.device
) -> None:
    """Raises ModelError, with both figures and what to do, for weights that a device has no room for.

    needed: bytes in `dtype`. free: bytes, None where nobody knows. Pictures need memory besides.
    """
    if free is None or needed <= free:
        return
    where = f"{device} has" if device.type == "cuda" else "this machine has"
    smaller = "a smaller model"
    if dtype.itemsize > 2:
        smaller = f"precision bf16 ({_gib(needed * 2 // dtype.itemsize)} GiB), {smaller}"
    more = "a GPU with more memory" if device.type == "cuda" else "a machine with more memory"
    raise ModelError(
        f"model = {model}: its weights need {_gib(needed)} GiB in {str(dtype).removeprefix('torch.')}, and "
        f"{where} {_gib(free)} GiB of memory free: use {smaller}, or {more}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
