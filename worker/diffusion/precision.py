"""Where a model computes, and in which number formats."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
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


_OVERFLOWING = {
    "T5EncoderModel": "T5",
    "UMT5EncoderModel": "UMT5",
    "Gemma2Model": "Gemma 2",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3Model": "Gemma 3",
    "FluxTransformer2DModel": "FLUX",
    "Flux2Transformer2DModel": "FLUX.2",
    "ChromaTransformer2DModel": "Chroma",
    "BriaTransformer2DModel": "Bria",
    "CogView3PlusTransformer2DModel": "CogView3",
    "CogView4Transformer2DModel": "CogView4",
    "LongCatImageTransformer2DModel": "LongCat",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "ZImageTransformer2DModel": "Z-Image",
    "Kandinsky5Transformer3DModel": "Kandinsky 5",
    "HiDreamImageTransformer2DModel": "HiDream",
}
"""Classes of components that were trained in bfloat16, and whose values leave float16's range."""


def overflow_warning(precision: Precision, parts: Iterable[str]) -> str:
    """What to say of float16 for a pipeline of components of these classes; empty when there is nothing."""
    if torch.float16 not in (precision.weights, precision.autocast):
        return ""
    names = sorted({_OVERFLOWING[part] for part in parts if part in _OVERFLOWING})
    if not names:
        return ""
    return (
        f"precision = {precision.name}: {' and '.join(names)} {'was' if len(names) == 1 else 'were'} trained "
        "in bfloat16 and can overflow in float16, which paints black or noise: use bf16 if that happens"
    )


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
