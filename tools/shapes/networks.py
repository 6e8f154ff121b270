"""The small Stable Diffusion untrained: VAE, text encoder, UNet, noise schedule, and pictures as tensors."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from tools.shapes.draw import SIZE

LATENT_CHANNELS: Final = 8
LATENT_SIZE: Final = SIZE // 8
TEXT_WIDTH: Final = 96
SCALING_FACTOR: Final = 0.18215
_FIRST_LOG_VARIANCE: Final = -6.0


def build_vae() -> AutoencoderKL:
    """64x64 pixels to 8x8 latents of 8 channels, and back."""
    channels = (16, 32, 64, 64)
    vae = AutoencoderKL(
        sample_size=SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=SCALING_FACTOR,
    )
    # Latents that begin as noise of variance 1 teach the decoder to ignore them.
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0.0
        vae.quant_conv.bias[LATENT_CHANNELS:] = _FIRST_LOG_VARIANCE
    return vae


def build_text_encoder(tokenizer: Any) -> CLIPTextModel:
    """CLIP's text encoder, two layers of width 96, over the tokenizer's window."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Convolutions at 8x8; at 4x4, where a thing is four cells, attention to the prompt as well."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; the UNet predicts v, well scaled even where all is noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def to_tensor(images: list[Image.Image]) -> torch.Tensor:
    """RGB images as float32 [B,3,H,W], -1 .. 1."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    """RGB images of float [B,3,H,W], -1 .. 1."""
    pixels = ((pictures.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
