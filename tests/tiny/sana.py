"""Sana: Gemma 2, linear attention and a deep-compression autoencoder; Sprint has its guidance embedded."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import gemma2_encoder
from tests.tiny.trained_tokenizers import gemma_tokenizer

_WIDTH = 16
_CHANNELS = 4
_ARGUMENTS = {
    "clean_caption": False,
    "use_resolution_binning": False,
    "complex_human_instruction": None,
    "max_sequence_length": 48,
}


def _sana() -> SanaPipeline:
    with random_weights():
        tokenizer = gemma_tokenizer()
        return SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=gemma2_encoder(tokenizer, _WIDTH),
            vae=_autoencoder(),
            transformer=_transformer(),
            scheduler=DPMSolverMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
        )


def _sprint() -> SanaSprintPipeline:
    with random_weights():
        tokenizer = gemma_tokenizer()
        return SanaSprintPipeline(
            tokenizer=tokenizer,
            text_encoder=gemma2_encoder(tokenizer, _WIDTH),
            vae=_autoencoder(),
            transformer=_transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads"),
            scheduler=SCMScheduler(prediction_type="trigflow", sigma_data=0.5),
        )


def _transformer(*, guidance_embeds: bool = False, qk_norm: str | None = None) -> SanaTransformer2DModel:
    transformer = SanaTransformer2DModel(
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=_WIDTH // 2,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=_WIDTH // 2,
        cross_attention_dim=_WIDTH,
        caption_channels=_WIDTH,
        mlp_ratio=2.0,
        sample_size=8,
        guidance_embeds=guidance_embeds,
        qk_norm=qk_norm,
    )
    return strengthened(transformer)


def _autoencoder() -> AutoencoderDC:
    """4 pixels a latent and side; its innermost block alone has attention."""
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    autoencoder = AutoencoderDC(
        latent_channels=_CHANNELS,
        attention_head_dim=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), (3,)),
        decoder_qkv_multiscales=((), (), (3,)),
    )
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.mul_(1.5)
    return autoencoder.eval()


SANA = (
    Family("SanaPipeline", _sana, 32, 32, arguments=_ARGUMENTS),
    # The default of 1.3 is for two steps alone.
    Family(
        "SanaSprintPipeline",
        _sprint,
        32,
        32,
        arguments={**_ARGUMENTS, "intermediate_timesteps": None},
    ),
)
"""The families of this file."""
