"""The device that a renderer computes on: its kind, its errors, and the versions that compute there."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import diffusers
import PIL
import torch
import transformers

from jobs.output.metadata import imagemill_version
from worker.engine.renderer import BrokenDevice, OutOfMemory


def versions() -> Mapping[str, str]:
    """Packages that bytes depend on, and their versions."""
    return {
        "torch": str(torch.__version__),
        "diffusers": str(diffusers.__version__),
        "transformers": str(transformers.__version__),
        "pillow": str(PIL.__version__),
        "imagemill": imagemill_version(),
    }


def kind_of_device(device: torch.device, options: Sequence[str] = ()) -> str:
    """What bytes depend on besides versions. options: how the denoiser runs, such as "compiled"."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else _kind_of_cpu()
    return ", ".join([kind, *options])


def _kind_of_cpu() -> str:
    """Model, instructions and threads: oneDNN and MKL choose kernels by the first two, threads cut sums."""
    kind = f"cpu {_cpu_model()} {torch.backends.cpu.get_cpu_capability()}"
    onednn = os.environ.get("ONEDNN_MAX_CPU_ISA")
    limit = [] if onednn is None else [f"oneDNN {onednn}"]
    threads = torch.get_num_threads()
    return ", ".join([kind, *limit, f"{threads} thread{'s'[: threads > 1]}"])


def _cpu_model() -> str:
    """Without its clock: "Intel(R) Xeon(R) Platinum 8370C CPU"; where it is not known, the architecture."""
    known = Path("/proc/cpuinfo")
    for line in known.read_text("utf-8").splitlines() if known.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.partition("@")[0].split())
    return platform.processor() or platform.machine()


_OUT_OF_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA driver error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_BROKEN_DEVICE = ("CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION_FAILED")


@contextmanager
def device_errors() -> Iterator[None]:
    """Distinguishes errors of the device from those of a request."""
    try:
        yield
    except RuntimeError as error:
        kind = kind_of_error(error)
        if kind is None:
            raise
        raise kind(str(error)) from error


def kind_of_error(error: Exception) -> type[OutOfMemory | BrokenDevice] | None:
    """What an error is of the device's; None where it is not of the device."""
    if not isinstance(error, RuntimeError):
        return None
    message = str(error)
    # torch's two classes are not all: the CPU's allocator, cuBLAS, cuDNN and Triton only say it.
    of_device = isinstance(error, torch.AcceleratorError)
    if (
        isinstance(error, torch.OutOfMemoryError)
        or any(words in message for words in _OUT_OF_MEMORY)
        or (of_device and "out of memory" in message)
    ):
        return OutOfMemory
    if of_device or any(words in message for words in _BROKEN_DEVICE):
        return BrokenDevice
    return None
