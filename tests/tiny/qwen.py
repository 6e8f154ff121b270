"""Qwen-Image, Z-Image, Ovis-Image and LongCat-Image, which read texts with Qwen; random weights."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLQwenImage,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from torch import nn

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, autoencoder, flow_scheduler
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import qwen3_encoder, qwen_vl_encoder
from tests.tiny.trained_tokenizers import qwen_tokenizer

_ROTARY = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 6, 6)}


def qwen_image() -> QwenImagePipeline:
    """Qwen 2.5 VL's texts of any length, 4 latent channels packed by twos to 16."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return QwenImagePipeline(
            scheduler=flow_scheduler(),
            vae=strengthened(
                AutoencoderKLQwenImage(
                    base_dim=4,
                    z_dim=4,
                    dim_mult=[1, 2, 2, 2],
                    num_res_blocks=1,
                    latents_mean=[0.0] * 4,
                    latents_std=[1.0] * 4,
                ),
                1.3,
                kinds=(nn.Conv2d, nn.Conv3d),
            ),
            text_encoder=qwen_vl_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=strengthened(
                QwenImageTransformer2DModel(
                    in_channels=16, out_channels=4, num_layers=2, joint_attention_dim=32, **_ROTARY
                ),
                1.5,
            ),
        )


def z_image() -> ZImagePipeline:
    """Lists of latents and of texts of any length, in one stream."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return ZImagePipeline(
            scheduler=flow_scheduler(),
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=qwen3_encoder(tokenizer).model,
            tokenizer=tokenizer,
            transformer=ZImageTransformer2DModel(
                in_channels=16,
                dim=32,
                n_layers=2,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=32,
                axes_dims=[4, 6, 6],
                axes_lens=[256, 64, 64],
            ).eval(),
        )


def ovis_image() -> OvisImagePipeline:
    """FLUX's blocks on Qwen 3's last layer."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return OvisImagePipeline(
            scheduler=flow_scheduler(),
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=qwen3_encoder(tokenizer).model,
            tokenizer=tokenizer,
            transformer=strengthened(
                OvisImageTransformer2DModel(
                    in_channels=64, num_layers=1, num_single_layers=1, joint_attention_dim=32, **_ROTARY
                ),
                1.5,
            ),
        )


def longcat_image() -> LongCatImagePipeline:
    """FLUX's blocks on Qwen 2.5 VL; texts are always padded to 512 tokens."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        return LongCatImagePipeline(
            scheduler=flow_scheduler(),
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=qwen_vl_encoder(tokenizer),
            tokenizer=tokenizer,
            # It only rewrites prompts, which the tests ask not to do; its own class needs torchvision.
            text_processor=tokenizer,
            transformer=strengthened(
                LongCatImageTransformer2DModel(
                    in_channels=64,
                    num_layers=1,
                    num_single_layers=1,
                    joint_attention_dim=32,
                    pooled_projection_dim=32,
                    **_ROTARY,
                ),
                1.5,
            ),
        )


QWEN = (
    Family(
        "QwenImagePipeline",
        qwen_image,
        SIDE,
        SIDE,
        arguments={"max_sequence_length": 64},
    ),
    Family("ZImagePipeline", z_image, SIDE, SIDE, arguments={"max_sequence_length": 64}),
    Family("OvisImagePipeline", ovis_image, SIDE, SIDE, arguments={"max_sequence_length": 64}),
    Family("LongCatImagePipeline", longcat_image, SIDE, SIDE),
)
"""The families of this file."""
