"""Stable Diffusion 1.4 with random weights: its networks, and our model of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from worker.diffusion.build_scheduler import build_scheduler
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.shapes_random import build as build_toy


@dataclass(frozen=True, slots=True)
class Parts:
    """The networks of a Stable Diffusion."""

    unet: Any
    vae: Any
    text_encoder: Any


def sd14(device: torch.device) -> Parts:
    """SD 1.4's networks with random weights, made on `device` in float32.

    Source: the configurations of CompVis/stable-diffusion-v1-4; what they share with diffusers' and
    transformers' defaults is left out.
    """
    torch.manual_seed(0)
    with device:
        return Parts(
            unet=UNet2DConditionModel(
                sample_size=64,
                block_out_channels=(320, 640, 1280, 1280),
                layers_per_block=2,
                attention_head_dim=8,
                cross_attention_dim=768,
            ),
            vae=AutoencoderKL(
                sample_size=512,
                latent_channels=4,
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                scaling_factor=0.18215,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=49408,
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                    max_position_embeddings=77,
                    hidden_act="quick_gelu",
                )
            ),
        )


def toy(device: torch.device) -> Parts:
    """The networks of the built-in model `shapes-random`."""
    pipeline = build_toy()
    return Parts(pipeline.unet.to(device), pipeline.vae.to(device), pipeline.text_encoder.to(device))


def model_of(
    parts: Parts, options: argparse.Namespace, device: torch.device, *, compiled: bool
) -> ImageDiffusionModel:
    """The product's own model of the parts."""
    schedule = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    ).config
    return ImageDiffusionModel(
        vae=parts.vae,
        # A few hundred tokens in the form of CLIP's; every prompt is padded to 77 of them in either.
        tokenizer=build_toy().tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        # In LMS' place, which nothing here asks for.
        scheduler_LMS=build_scheduler("PNDM", schedule),
        scheduler_DDIM=build_scheduler("DDIM", schedule),
        device=device,
        precision=options.precision,
        compiled=compiled,
        channels_last=options.channels_last,
    )
