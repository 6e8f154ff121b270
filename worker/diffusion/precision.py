"""Where a model computes, and in which number formats."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from jobs.errors import RenderError, SettingsError


@dataclass(frozen=True, slots=True)
class Precision:
    """What the weights are held in, and what autocast computes in (None: no autocast)."""

    name: str
    """bf16, fp16, amp or fp32; never auto."""
    weights: torch.dtype
    vae: torch.dtype
    autocast: torch.dtype | None = None

    def computing(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """The context in which the text encoder and the UNet run."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.autocast)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision that `name` (auto, bf16, fp16, amp, fp32) means on `device`.

    auto is bf16 on CUDA and fp32 elsewhere. amp computes in float16 on CUDA, in bfloat16 elsewhere. Under
    amp and fp16 the VAE stays in float32: its activations leave float16's range and the picture turns black.
    Raises RenderError for another name.
    """
    cuda = device.type == "cuda"
    match name:
        case "auto":
            return resolve_precision("bf16" if cuda else "fp32", device)
        case "bf16":
            return Precision(name, torch.bfloat16, torch.bfloat16)
        case "fp16":
            return Precision(name, torch.float16, torch.float32)
        case "amp":
            return Precision(name, torch.float32, torch.float32, torch.float16 if cuda else torch.bfloat16)
        case "fp32":
            return Precision(name, torch.float32, torch.float32)
    raise RenderError(f"precision = {name!r}: there is no such precision: use auto, bf16, fp16, amp or fp32")


def resolve_device(name: str | torch.device | None) -> torch.device:
    """The torch device that `name` means: None and "auto" are CUDA where there is one, else the CPU.

    Raises SettingsError for a device that torch does not know, or that this machine does not have.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device = {name!r}: torch knows no such device: use auto, cpu or cuda") from None
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        raise SettingsError(
            f"device = {str(device)!r}: torch {torch.__version__} sees {there} GPUs here: use cpu, or "
            "install torch's CUDA build and NVIDIA's driver"
        )
    return device
