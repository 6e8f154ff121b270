"""Tiny pipelines of models that paint from pictures, by their own class; random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    CogView4ControlPipeline,
    DiffusionPipeline,
    FluxControlPipeline,
    FluxFillPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
)
from torch import nn
from transformers import BatchFeature, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.tiny.families import FAMILIES
from tests.tiny.family import Family, random_weights
from tests.tiny.flux import flux_dev
from tests.tiny.image_parts import SIDE
from tests.tiny.qwen import qwen_image
from tests.tiny.stable_diffusion import stable_diffusion, stable_diffusion_xl


class Eyes:
    """What Qwen2VLProcessor does of texts and pictures, which needs torchvision for videos."""

    def __init__(self, tokenizer: Qwen2Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image_processor = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> BatchFeature:
        """Tokens, with as many of the picture's as it has patches, and the patches."""
        seen = {} if images is None else self.image_processor(images=images, return_tensors=return_tensors)
        counts = [int(grid.prod()) // 4 for grid in seen.get("image_grid_thw", [])]
        filled = [_filled(one, counts) for one in text]
        tokens = self.tokenizer(filled, padding=padding, return_tensors=return_tensors)
        return BatchFeature({**tokens, **seen})


def _filled(text: str, counts: list[int]) -> str:
    """The text with each mark of a picture as often as the picture has patches."""
    first, *rest = text.split("<|image_pad|>")
    return first + "".join("<|image_pad|>" * count + part for count, part in zip(counts, rest, strict=False))


def _widened(unet: Any, channels: int) -> Any:
    """A UNet of more channels at its beginning: what it sees beside the noise."""
    with random_weights(2):
        wider = type(unet).from_config({**unet.config, "in_channels": channels})
        own = {name: one for name, one in unet.state_dict().items() if not name.startswith("conv_in")}
        wider.load_state_dict(own, strict=False)
    return wider.eval()


def _of(kind: type[DiffusionPipeline], parts: dict[str, Any], **config: Any) -> Any:
    expected, _optional = kind._get_signature_keys(kind)
    return kind(**{name: part for name, part in parts.items() if name in expected}, **config)


def _inpainting() -> DiffusionPipeline:
    parts = stable_diffusion().components
    return _of(
        StableDiffusionInpaintPipeline,
        {**parts, "unet": _widened(parts["unet"], 9)},
        requires_safety_checker=False,
    )


def _instructed() -> DiffusionPipeline:
    parts = stable_diffusion().components
    return _of(
        StableDiffusionInstructPix2PixPipeline,
        {**parts, "unet": _widened(parts["unet"], 8)},
        requires_safety_checker=False,
    )


def _xl_refining() -> DiffusionPipeline:
    return _of(StableDiffusionXLImg2ImgPipeline, stable_diffusion_xl().components, add_watermarker=False)


def _xl_inpainting() -> DiffusionPipeline:
    parts = stable_diffusion_xl().components
    parts["unet"] = _widened(parts["unet"], 9)
    return _of(StableDiffusionXLInpaintPipeline, parts, add_watermarker=False)


def _xl_instructed() -> DiffusionPipeline:
    parts = stable_diffusion_xl().components
    parts["unet"] = _widened(parts["unet"], 8)
    return _of(StableDiffusionXLInstructPix2PixPipeline, parts, add_watermarker=False)


def _flux_of(kind: type[DiffusionPipeline], channels: int) -> DiffusionPipeline:
    parts = flux_dev().components
    # The plain one left its output to the default, which is as wide as the input.
    config = {**parts["transformer"].config, "_use_default_values": [], "in_channels": channels}
    config["out_channels"] = 64
    with random_weights(2):
        parts["transformer"] = FluxTransformer2DModel.from_config(config).eval()
    return _of(kind, parts)


def _qwen_of(kind: type[DiffusionPipeline]) -> DiffusionPipeline:
    parts = qwen_image().components
    return _of(kind, {**parts, "processor": Eyes(parts["tokenizer"])})


def _cogview_controlled() -> DiffusionPipeline:
    parts = FAMILIES["CogView4Pipeline"].build().components
    with random_weights(2):
        transformer = type(parts["transformer"]).from_config(
            {**parts["transformer"].config, "in_channels": 8}
        )
        with torch.no_grad():
            for part in transformer.modules():
                if isinstance(part, nn.Linear):
                    part.weight.mul_(2.0)
    parts["transformer"] = transformer.eval()
    return _of(CogView4ControlPipeline, parts)


_SHORT = {"max_sequence_length": 32}
FROM_PICTURES: dict[str, Family] = {
    one.class_name: one
    for one in (
        Family("StableDiffusionInpaintPipeline", _inpainting, SIDE, SIDE),
        Family("StableDiffusionInstructPix2PixPipeline", _instructed, SIDE, SIDE),
        Family("StableDiffusionXLImg2ImgPipeline", _xl_refining, SIDE, SIDE),
        Family("StableDiffusionXLInpaintPipeline", _xl_inpainting, SIDE, SIDE),
        Family("StableDiffusionXLInstructPix2PixPipeline", _xl_instructed, SIDE, SIDE),
        Family("FluxControlPipeline", lambda: _flux_of(FluxControlPipeline, 128), SIDE, SIDE, _SHORT),
        Family("FluxFillPipeline", lambda: _flux_of(FluxFillPipeline, 384), SIDE, SIDE, _SHORT),
        Family("QwenImageEditPipeline", lambda: _qwen_of(QwenImageEditPipeline), SIDE, SIDE),
        Family("QwenImageEditPlusPipeline", lambda: _qwen_of(QwenImageEditPlusPipeline), SIDE, SIDE),
        Family("CogView4ControlPipeline", _cogview_controlled, 16, 16, {"max_sequence_length": 128}),
    )
}
"""By the names of their classes."""
