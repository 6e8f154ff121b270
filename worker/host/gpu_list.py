"""Which GPUs this process may use. torch is not imported: it would take a part of each."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobs.errors import SettingsError

_log = logging.getLogger(__name__)
_NVML = Path(__file__).with_name("nvml_list.py")
_HIDDEN: Final = ("", "-1", "NoDevFiles")
"""What CUDA_VISIBLE_DEVICES is set to in order to hide every GPU; the last one is Slurm's."""
_BUS_ORDER: Final = "PCI_BUS_ID"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its number in nvidia-smi's order, and the UUID that names it in any order."""

    index: int
    uuid: str


def list_gpus(patience: float = 60.0) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that this process may use, by nvidia-ml-py where it is installed, else nvidia-smi.

    A CUDA_VISIBLE_DEVICES that is set already (by Slurm, say) narrows the list; MIG slices are listed only
    when it names them, and then all are numbered by their place in it. Its numbers are nvidia-smi's, as
    CUDA's own are with CUDA_DEVICE_ORDER=PCI_BUS_ID; SettingsError where another order is asked for. A driver
    that gives no answer within `patience` seconds, or fails, counts as no GPU, with a warning, and so does
    one GPU that does not answer.
    """
    gpus = _list(patience)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus if visible is None else tuple(_narrowed(gpus, visible))


def _narrowed(gpus: Sequence[Gpu], visible: str) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES names. As in CUDA, the first name of none ends the list."""
    tokens = [token.strip() for token in visible.split(",")]
    order = os.environ.get("CUDA_DEVICE_ORDER", _BUS_ORDER)
    if order != _BUS_ORDER and len(gpus) > 1 and any(token.isdecimal() for token in tokens):
        raise SettingsError(
            f"CUDA_VISIBLE_DEVICES = {visible} with CUDA_DEVICE_ORDER = {order}: only CUDA knows which GPUs "
            f"these numbers are: name GPUs by UUID (nvidia-smi -L), or set CUDA_DEVICE_ORDER={_BUS_ORDER}"
        )
    chosen: list[Gpu] = []
    for place, token in enumerate(tokens):
        if token.startswith("MIG-"):
            chosen.append(Gpu(place, token))
            continue
        named = [
            gpu
            for gpu in gpus
            if token == str(gpu.index) or (token.startswith("GPU-") and gpu.uuid.startswith(token))
        ]
        if len(named) != 1:
            if token not in _HIDDEN:
                count = "more than one GPU" if named else "no GPU"
                _log.warning(
                    "CUDA_VISIBLE_DEVICES = %s: %s names %s here, so neither it nor what follows it is used; "
                    "nvidia-smi -L shows the names",
                    visible, token, count,
                )  # fmt: skip
            break
        chosen += named
    if any(gpu.uuid.startswith("MIG-") for gpu in chosen):
        # A slice has no number of its own, and no two devices may have the same.
        return [Gpu(place, gpu.uuid) for place, gpu in enumerate(chosen)]
    return chosen


def _list(patience: float) -> tuple[Gpu, ...]:
    asked = _ask([sys.executable, "-P", str(_NVML)], patience)
    if asked is not None and asked.returncode == 0:
        for warning in asked.stderr.splitlines():
            _log.warning("%s", warning)
        return _read(asked.stdout)
    if asked is None:
        _log.warning("the NVIDIA driver gave no answer within %g s: its GPUs are left alone", patience)
        return ()
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = _ask([program, "--query-gpu=index,uuid", "--format=csv,noheader"], patience)
    if asked is None:
        _log.warning("nvidia-smi gave no answer within %g s: its GPUs are left alone", patience)
        return ()
    if asked.returncode != 0:
        said = (asked.stdout + asked.stderr).strip() or f"exit status {asked.returncode}"
        _log.warning("nvidia-smi failed, so no GPU is used: %s", said)
        return ()
    return _read(asked.stdout)


def _ask(argv: Sequence[str], patience: float) -> subprocess.CompletedProcess[str] | None:
    """What a program said and how it ended; None where it did not end in time.

    It is killed then, but not waited for: a process that is stuck in a driver does not die before the driver
    answers, and `subprocess.run` would wait as long.
    """
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(min(patience, 1.0))
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return None
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _read(listing: str) -> tuple[Gpu, ...]:
    gpus = []
    for line in listing.splitlines():
        index, _, uuid = (part.strip() for part in line.partition(","))
        if not index.isdecimal() or not re.fullmatch(r"GPU-[0-9a-fA-F-]+", uuid):
            raise SettingsError(f"nvidia-smi: cannot read its line {line!r}: use --gpus none for the CPU")
        gpus.append(Gpu(int(index), uuid))
    return tuple(gpus)
