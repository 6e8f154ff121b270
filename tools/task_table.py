"""What diffusers' signatures do not say of the classes that paint images of a model from pictures.

Most are told as the class of the model's own, with what differs. tools/pipelines.py finds which model's class
each belongs to in diffusers' AutoPipeline mappings, and in BESIDE what these lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tools.known_pipeline import Known
from tools.pipeline_table import ADMITTED, REFINING


def _of(base: str, **changes: Any) -> Known:
    return replace(ADMITTED[base], of=base, own=(), **changes)


_SD: Final[Mapping[str, Any]] = {"fixed": {}}
"""Its tasks do not go by tables."""
_ONE_CALL: Final[Mapping[str, Any]] = {"switch": None, "guided": (1, 1)}
"""Guidance is the model's own: no second call."""
_XL: Final[Mapping[str, Any]] = {"fixed": REFINING}

FOR_TASKS: Final[Mapping[str, Known]] = {
    "ChromaImg2ImgPipeline": _of("ChromaPipeline"),
    "Flux2KleinInpaintPipeline": _of("Flux2KleinPipeline"),
    "FluxControlImg2ImgPipeline": _of("FluxControlPipeline"),
    "FluxControlInpaintPipeline": _of("FluxControlPipeline"),
    "FluxControlNetImg2ImgPipeline": _of("FluxPipeline", **_ONE_CALL),
    "FluxControlNetInpaintPipeline": _of("FluxPipeline", **_ONE_CALL),
    "FluxControlNetPipeline": _of("FluxPipeline"),
    "FluxImg2ImgPipeline": _of("FluxPipeline"),
    "FluxInpaintPipeline": _of("FluxPipeline"),
    "FluxKontextInpaintPipeline": _of(
        "FluxKontextPipeline",
        # It would paint the picture in one of seventeen sizes.
        fixed={"_auto_resize": (False, "pictures have the size that is asked for")},
    ),
    "HunyuanDiTControlNetPipeline": _of("HunyuanDiTPipeline"),
    "IFImg2ImgPipeline": _of("IFPipeline"),
    "IFInpaintingPipeline": _of("IFPipeline"),
    "Kandinsky3Img2ImgPipeline": _of("Kandinsky3Pipeline"),
    "KandinskyImg2ImgCombinedPipeline": _of("KandinskyCombinedPipeline"),
    "KandinskyV22Img2ImgCombinedPipeline": _of("KandinskyV22CombinedPipeline"),
    "KolorsImg2ImgPipeline": _of("KolorsPipeline", fixed=REFINING),
    "LatentConsistencyModelImg2ImgPipeline": _of("LatentConsistencyModelPipeline", keeps_steps=True),
    "QwenImageControlNetInpaintPipeline": _of("QwenImagePipeline"),
    "QwenImageControlNetPipeline": _of("QwenImagePipeline"),
    "QwenImageImg2ImgPipeline": _of("QwenImagePipeline"),
    "QwenImageInpaintPipeline": _of("QwenImagePipeline"),
    "SanaControlNetPipeline": _of("SanaPipeline"),
    "SanaSprintImg2ImgPipeline": _of("SanaSprintPipeline"),
    "StableDiffusion3ControlNetInpaintingPipeline": _of("StableDiffusion3Pipeline"),
    "StableDiffusion3ControlNetPipeline": _of("StableDiffusion3Pipeline"),
    "StableDiffusion3Img2ImgPipeline": _of("StableDiffusion3Pipeline"),
    "StableDiffusion3InpaintPipeline": _of("StableDiffusion3Pipeline"),
    "StableDiffusion3PAGImg2ImgPipeline": _of("StableDiffusion3PAGPipeline"),
    "StableDiffusionControlNetImg2ImgPipeline": _of("StableDiffusionPipeline", **_SD),
    "StableDiffusionControlNetInpaintPipeline": _of("StableDiffusionPipeline", **_SD),
    "StableDiffusionControlNetPAGInpaintPipeline": _of("StableDiffusionPAGPipeline"),
    "StableDiffusionControlNetPAGPipeline": _of("StableDiffusionPAGPipeline"),
    "StableDiffusionControlNetPipeline": _of("StableDiffusionPipeline", **_SD),
    "StableDiffusionImg2ImgPipeline": _of("StableDiffusionPipeline", **_SD),
    "StableDiffusionPAGImg2ImgPipeline": _of("StableDiffusionPAGPipeline"),
    "StableDiffusionPAGInpaintPipeline": _of("StableDiffusionPAGPipeline"),
    "StableDiffusionXLControlNetImg2ImgPipeline": _of("StableDiffusionXLPipeline"),
    "StableDiffusionXLControlNetInpaintPipeline": _of("StableDiffusionXLPipeline", **_XL),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": _of("StableDiffusionXLPAGPipeline"),
    "StableDiffusionXLControlNetPAGPipeline": _of("StableDiffusionXLPAGPipeline"),
    "StableDiffusionXLControlNetPipeline": _of("StableDiffusionXLPipeline"),
    "StableDiffusionXLPAGImg2ImgPipeline": _of("StableDiffusionXLPAGPipeline", **_XL),
    "StableDiffusionXLPAGInpaintPipeline": _of("StableDiffusionXLPAGPipeline", **_XL),
    "ZImageImg2ImgPipeline": _of("ZImagePipeline"),
    "ZImageInpaintPipeline": _of("ZImagePipeline"),
}

BESIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "ChromaPipeline": ("ChromaImg2ImgPipeline",),
    "Flux2KleinPipeline": ("Flux2KleinInpaintPipeline",),
    "FluxKontextPipeline": ("FluxKontextInpaintPipeline",),
    "HunyuanDiTPipeline": ("HunyuanDiTControlNetPipeline",),
    "QwenImagePipeline": ("QwenImageControlNetInpaintPipeline",),
    "SanaPipeline": ("SanaControlNetPipeline",),
    "SanaSprintPipeline": ("SanaSprintImg2ImgPipeline",),
    # A UNet of nine channels goes with a ControlNet as one of four does.
    "StableDiffusionInpaintPipeline": ("StableDiffusionControlNetInpaintPipeline",),
    "StableDiffusionXLImg2ImgPipeline": ("StableDiffusionXLInpaintPipeline",),
    "StableDiffusionXLInpaintPipeline": ("StableDiffusionXLControlNetInpaintPipeline",),
}
"""Tasks of a model's class that no AutoPipeline mapping has."""

_NINE: Final = "it needs a denoiser of nine channels, which no model that paints from text alone has"
LEFT_OUT: Final[Mapping[str, str]] = {
    "KandinskyInpaintCombinedPipeline": _NINE,
    "KandinskyV22InpaintCombinedPipeline": _NINE,
    "QwenImageEditInpaintPipeline": "it takes no size, but makes one of about a million pixels",
    "ZImageControlNetPipeline": "diffusers joins its ControlNets, single files, to the model's weights",
    "ZImageControlNetInpaintPipeline": "as ZImageControlNetPipeline",
}
"""Tasks of admitted classes by those mappings that are not painted, and why."""
