"""Which LoRAs diffusers loads into which class of pipelines, and in which form their layers may be named.

Source: diffusers' loaders/lora_pipeline.py, `lora_state_dict` of each loader;
tests/jobs/adapter_files/test_lora_loaders.py asks each of the installed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobs.adapter_files.lora_file import Form, Pair

_PAIRS: Final[frozenset[Pair]] = frozenset({"lora_A", "lora.down"})


@dataclass(frozen=True, slots=True)
class LoraLoader:
    """What diffusers' loader of some classes takes."""

    name: str
    """Of diffusers' class."""
    denoiser: str
    """The component whose layers have the names of the form `diffusers`."""
    text_encoders: tuple[str, ...] = ()
    """The other components that it loads layers into."""
    forms: frozenset[Form] = frozenset({"diffusers"})
    """The forms that it reads."""
    original: frozenset[Form] = frozenset()
    """The forms that must have the names of the model's authors (double_blocks)."""
    comfyui_down: bool = False
    """Whether ComfyUI's form must call its matrices lora_down and lora_up."""
    pairs: frozenset[Pair] = _PAIRS
    """What the matrices of the form `diffusers` may be called."""
    alphas: bool = False
    """Whether the form `diffusers` may have alphas."""
    bare_with: bool = False
    """Whether names without a prefix are read where they have alphas or `.default.`."""
    strict: bool = True
    """Whether it refuses a file with a tensor that is no LoRA's."""

    @property
    def components(self) -> tuple[str, ...]:
        """Everything that it loads layers into."""
        return (self.denoiser, *self.text_encoders)


def _forms(*forms: Form) -> frozenset[Form]:
    return frozenset({"diffusers", *forms})


_SD: Final = LoraLoader("StableDiffusionLoraLoaderMixin", "unet", ("text_encoder",), _forms("kohya"))
_SDXL: Final = LoraLoader(
    "StableDiffusionXLLoraLoaderMixin", "unet", ("text_encoder", "text_encoder_2"), _forms("kohya")
)
_SD3: Final = LoraLoader("SD3LoraLoaderMixin", "transformer", ("text_encoder", "text_encoder_2"))
_FLUX: Final = LoraLoader(
    "FluxLoraLoaderMixin",
    "transformer",
    ("text_encoder",),
    _forms("kohya", "comfyui", "peft"),
    original=frozenset({"kohya", "comfyui"}),
    comfyui_down=True,
    pairs=_PAIRS | {"lora_down"},
    alphas=True,
    strict=False,
)
_QWEN: Final = LoraLoader(
    "QwenImageLoraLoaderMixin", "transformer", forms=_forms("kohya", "comfyui"), bare_with=True
)
_Z_IMAGE: Final = LoraLoader(
    "ZImageLoraLoaderMixin", "transformer", forms=_forms("kohya", "comfyui"), bare_with=True
)
_FLUX_2: Final = LoraLoader(
    "Flux2LoraLoaderMixin",
    "transformer",
    forms=_forms("kohya", "comfyui", "peft"),
    original=frozenset({"kohya"}),
)
_LUMINA: Final = LoraLoader("Lumina2LoraLoaderMixin", "transformer", forms=_forms("comfyui"))
_HIDREAM: Final = LoraLoader("HiDreamImageLoraLoaderMixin", "transformer", forms=_forms("comfyui"))
_ERNIE: Final = LoraLoader("ErnieImageLoraLoaderMixin", "transformer", forms=_forms("comfyui", "peft"))
_KREA: Final = LoraLoader("Krea2LoraLoaderMixin", "transformer", forms=_forms("comfyui", "peft"))
_IDEOGRAM: Final = LoraLoader("Ideogram4LoraLoaderMixin", "transformer", forms=_forms("comfyui"))
_SANA: Final = LoraLoader("SanaLoraLoaderMixin", "transformer")
_AURA: Final = LoraLoader("AuraFlowLoraLoaderMixin", "transformer")
_COGVIEW: Final = LoraLoader("CogView4LoraLoaderMixin", "transformer")
_KANDINSKY: Final = LoraLoader("KandinskyLoraLoaderMixin", "transformer")
_FIBO: Final = LoraLoader("BriaFibo2LoraLoaderMixin", "transformer")

LOADERS: Final[Mapping[str, LoraLoader]] = {
    "AuraFlowPipeline": _AURA,
    "BriaFibo2Pipeline": _FIBO,
    "BriaFiboPipeline": _FLUX,
    "ChromaPipeline": _FLUX,
    "CogView4Pipeline": _COGVIEW,
    "ErnieImagePipeline": _ERNIE,
    "Flux2KleinPipeline": _FLUX_2,
    "Flux2Pipeline": _FLUX_2,
    "FluxControlPipeline": _FLUX,
    "FluxFillPipeline": _FLUX,
    "FluxKontextPipeline": _FLUX,
    "FluxPipeline": _FLUX,
    "HiDreamImagePipeline": _HIDREAM,
    "IFPipeline": _SD,
    "Ideogram4Pipeline": _IDEOGRAM,
    "Kandinsky3Pipeline": _SD,
    "Kandinsky5T2IPipeline": _KANDINSKY,
    "KolorsPAGPipeline": _SDXL,
    "KolorsPipeline": _SD,
    "Krea2Pipeline": _KREA,
    "LatentConsistencyModelPipeline": _SD,
    "Lumina2Pipeline": _LUMINA,
    "QwenImageEditPipeline": _QWEN,
    "QwenImageEditPlusPipeline": _QWEN,
    "QwenImagePipeline": _QWEN,
    "SanaPipeline": _SANA,
    "SanaSprintPipeline": _SANA,
    "StableDiffusion3PAGPipeline": _SD3,
    "StableDiffusion3Pipeline": _SD3,
    "StableDiffusionInpaintPipeline": _SD,
    "StableDiffusionInstructPix2PixPipeline": _SD,
    "StableDiffusionPAGPipeline": _SD,
    "StableDiffusionPipeline": _SD,
    "StableDiffusionXLImg2ImgPipeline": _SDXL,
    "StableDiffusionXLInpaintPipeline": _SDXL,
    "StableDiffusionXLInstructPix2PixPipeline": _SDXL,
    "StableDiffusionXLPAGPipeline": _SDXL,
    "StableDiffusionXLPipeline": _SDXL,
    "StableUnCLIPPipeline": _SD,
    "ZImageOmniPipeline": _Z_IMAGE,
    "ZImagePipeline": _Z_IMAGE,
}
"""diffusers' class -> its loader; classes that are not here take no LoRA."""
