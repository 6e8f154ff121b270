"""HunyuanDiT, with BERT and T5, and HunyuanImage 2.1, with Qwen 2.5 VL, ByT5 and guiders."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import bert_encoder, byt5_encoder, qwen_vl_encoder, t5_encoder
from tests.tiny.trained_tokenizers import bert_tokenizer, byt5_tokenizer, qwen_tokenizer, t5_tokenizer

_WIDTH = 16


def _dit() -> HunyuanDiTPipeline:
    with random_weights():
        tokenizer, tokenizer_2 = bert_tokenizer(), t5_tokenizer()
        return HunyuanDiTPipeline(
            tokenizer=tokenizer,
            text_encoder=bert_encoder(tokenizer, _WIDTH),
            tokenizer_2=tokenizer_2,
            text_encoder_2=t5_encoder(tokenizer_2, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=8, contrast=1.2),
            transformer=strengthened(
                HunyuanDiT2DModel(
                    sample_size=8,
                    in_channels=4,
                    patch_size=2,
                    num_attention_heads=2,
                    attention_head_dim=_WIDTH // 2,
                    hidden_size=_WIDTH,
                    num_layers=4,
                    mlp_ratio=2.0,
                    cross_attention_dim=_WIDTH,
                    cross_attention_dim_t5=_WIDTH,
                    pooled_projection_dim=_WIDTH,
                ),
                factor=1.4,
            ),
            scheduler=DDPMScheduler(
                beta_schedule="scaled_linear", beta_end=0.02, prediction_type="v_prediction", steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def _image() -> HunyuanImagePipeline:
    with random_weights():
        tokenizer, tokenizer_2 = qwen_tokenizer(), byt5_tokenizer()
        autoencoder = AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32),  # its group norms have 32 groups
            layers_per_block=1,
            spatial_compression_ratio=2,
            sample_size=16,
            scaling_factor=0.75,
        )
        with torch.no_grad():
            autoencoder.decoder.conv_out.weight.mul_(1.2)
        return HunyuanImagePipeline(
            tokenizer=tokenizer,
            text_encoder=qwen_vl_encoder(tokenizer, _WIDTH),
            tokenizer_2=tokenizer_2,
            text_encoder_2=byt5_encoder(tokenizer_2, _WIDTH),
            vae=autoencoder.eval(),
            transformer=strengthened(
                HunyuanImageTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_attention_heads=1,
                    attention_head_dim=8,
                    num_layers=1,
                    num_single_layers=1,
                    num_refiner_layers=1,
                    mlp_ratio=2.0,
                    text_embed_dim=_WIDTH,
                    text_embed_2_dim=_WIDTH,
                    rope_axes_dim=(4, 4),
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            # From the second step on the guidance has a momentum: a state of the image.
            guider=AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
            ocr_guider=AdaptiveProjectedMixGuidance(
                guidance_scale=2.5, adaptive_projected_guidance_start_step=3
            ),
        )


HUNYUAN = (
    Family(
        "HunyuanDiTPipeline",
        _dit,
        32,
        32,
        arguments={"use_resolution_binning": False},
    ),
    # Its guidance is the guiders' own; the call knows that of distilled models alone.
    Family("HunyuanImagePipeline", _image, 16, 16),
)
"""The families of this file."""
