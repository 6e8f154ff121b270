"""Tiny pipelines that paint from a prompt, and may be given pictures beside it; random weights."""

from __future__ import annotations

from diffusers import FluxKontextPipeline, ZImageOmniPipeline
from transformers import Siglip2ImageProcessorPil, Siglip2VisionConfig, Siglip2VisionModel

from tests.tiny.family import Family, random_weights
from tests.tiny.flux import flux_dev
from tests.tiny.image_parts import SIDE
from tests.tiny.qwen import z_image


def flux_kontext() -> FluxKontextPipeline:
    """FLUX dev's parts."""
    return FluxKontextPipeline(**flux_dev().components)


def z_image_omni() -> ZImageOmniPipeline:
    """Z-Image's parts, and an encoder of pictures that no prompt alone uses."""
    with random_weights():
        eyes = Siglip2VisionModel(
            Siglip2VisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_patches=16,
                patch_size=8,
            )
        )
    return ZImageOmniPipeline(
        **z_image().components,
        siglip=eyes.eval(),
        siglip_processor=Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
    )


OPTIONAL_PICTURES = (
    Family(
        "FluxKontextPipeline",
        flux_kontext,
        SIDE,
        SIDE,
        arguments={"max_sequence_length": 32, "max_area": SIDE * SIDE},
    ),
    Family("ZImageOmniPipeline", z_image_omni, SIDE, SIDE, arguments={"max_sequence_length": 64}),
)
"""The families of this file."""
