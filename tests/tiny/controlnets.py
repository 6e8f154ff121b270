"""ControlNets with random weights for the tiny pipelines, made of their denoisers."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel, DiffusionPipeline, FluxControlNetModel, SD3ControlNetModel

from tests.tiny.family import random_weights


def controlnet_of(pipeline: DiffusionPipeline, seed: int = 3) -> torch.nn.Module:
    """A ControlNet for a tiny pipeline; a new one says nothing until it was trained, this one does."""
    with random_weights(seed):
        made = _made(pipeline)
        with torch.no_grad():
            for weight in made.parameters():
                if not weight.any():
                    weight.normal_(std=0.2)
    return made.eval()


def _made(pipeline: Any) -> torch.nn.Module:
    if hasattr(pipeline, "unet"):
        # Each but the first halves the picture's sides, down to those of latents.
        halvings = int(pipeline.vae_scale_factor).bit_length() - 1
        return ControlNetModel.from_unet(
            pipeline.unet, conditioning_embedding_out_channels=(8,) * (1 + halvings)
        )
    transformer = pipeline.transformer
    if "Flux" in type(transformer).__name__:
        config = transformer.config
        return FluxControlNetModel.from_transformer(
            transformer,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=config.attention_head_dim,
            num_attention_heads=config.num_attention_heads,
        )
    return SD3ControlNetModel.from_transformer(transformer, num_layers=1, num_extra_conditioning_channels=0)
