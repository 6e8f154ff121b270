"""Families that read their texts with Qwen 3 VL: Krea 2, Nucleus-Image, DreamLite and Ideogram 4."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderTiny,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
)
from diffusers.pipelines.ideogram4.pipeline_ideogram4 import QWEN3_VL_ACTIVATION_LAYERS
from torch import nn

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, flow_scheduler
from tests.tiny.redrawn import redrawn
from tests.tiny.text_encoders import qwen3_vl_encoder
from tests.tiny.trained_tokenizers import qwen_tokenizer

_WIDTH = 32
"""Numbers of a token's embedding."""
_HALF = SIDE // 2
"""Pixels of the families whose autoencoder has two levels."""


def krea_2() -> Krea2Pipeline:
    """Three layers of every token's hidden states; the same number of tokens in every text."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        transformer = Krea2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=_WIDTH,
            num_text_layers=3,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=32,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        )
        return Krea2Pipeline(
            scheduler=flow_scheduler(),
            vae=_qwen_image_autoencoder(),
            text_encoder=qwen3_vl_encoder(tokenizer, _WIDTH).model,
            tokenizer=tokenizer,
            transformer=redrawn(transformer),
            text_encoder_select_layers=(0, 1, 2),
        )


def nucleus_image() -> NucleusMoEImagePipeline:
    """Four experts that choose their tokens; texts of any multiple of eight tokens."""
    tokenizer = qwen_tokenizer()
    with random_weights():
        transformer = NucleusMoEImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            joint_attention_dim=_WIDTH,
            axes_dims_rope=(4, 6, 6),
            dense_moe_strategy="leave_first_block_dense",
            num_experts=4,
            moe_intermediate_dim=16,
            capacity_factors=2.0,
        )
        return NucleusMoEImagePipeline(
            transformer=redrawn(transformer),
            scheduler=flow_scheduler(),
            vae=_qwen_image_autoencoder(),
            text_encoder=qwen3_vl_encoder(tokenizer, _WIDTH),
            processor=tokenizer,
        )


def dream_lite() -> DreamLitePipeline:
    """A U-Net whose input is twice as wide as the picture, with texts as long as the longer of the two.

    The picture's size goes to the U-Net as two numbers a sample. diffusers gives them for one picture only,
    so `num_images_per_prompt=2` fails.
    """
    tokenizer = qwen_tokenizer()
    with random_weights():
        unet = DreamLiteUNetModel(
            down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
            up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
            block_out_channels=(16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=_WIDTH,
            attention_head_dim=2,
            use_linear_projection=True,
            addition_embed_type="time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16,
            ff_mult=2,
        )
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            scaling_factor=2.0,
        )
        _grey(redrawn(vae).decoder.layers[-1])
        return DreamLitePipeline(
            text_encoder=qwen3_vl_encoder(tokenizer, _WIDTH),
            tokenizer=tokenizer,
            processor=tokenizer,
            vae=vae,
            unet=redrawn(unet),
            scheduler=flow_scheduler(),
        )


def dream_lite_mobile() -> DreamLiteMobilePipeline:
    """DreamLite's parts without guidance."""
    return DreamLiteMobilePipeline(**dream_lite().components)


def ideogram_4() -> Ideogram4Pipeline:
    """Two transformers, one with the text before the picture, one with the picture alone."""
    tokenizer = qwen_tokenizer()
    width = 16
    with random_weights():
        sizes = {
            "in_channels": 16,
            "num_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "adaln_dim": 16,
            "llm_features_dim": width * len(QWEN3_VL_ACTIVATION_LAYERS),
            "mrope_section": (4, 2, 2),
        }
        vae = AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
        )
        return Ideogram4Pipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=redrawn(vae),
            text_encoder=qwen3_vl_encoder(tokenizer, width, max(QWEN3_VL_ACTIVATION_LAYERS) + 1).model,
            tokenizer=tokenizer,
            transformer=redrawn(Ideogram4Transformer2DModel(**sizes)),
            unconditional_transformer=redrawn(Ideogram4Transformer2DModel(**sizes)),
        )


@torch.no_grad()
def _grey(last: nn.Conv2d) -> None:
    """Let pictures of a decoder whose values are pixels from 0 to 1 lie around grey."""
    last.weight.mul_(0.3)
    if last.bias is not None:
        last.bias.fill_(0.5)


def _qwen_image_autoencoder() -> AutoencoderKLQwenImage:
    """Qwen-Image's autoencoder with two levels."""
    return redrawn(
        AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        )
    )


KREA = (
    Family("Krea2Pipeline", krea_2, _HALF, _HALF, arguments={"max_sequence_length": 64}),
    Family("NucleusMoEImagePipeline", nucleus_image, _HALF, _HALF, arguments={"return_index": -1}),
    Family("DreamLitePipeline", dream_lite, _HALF, _HALF),
    Family("DreamLiteMobilePipeline", dream_lite_mobile, _HALF, _HALF),
    Family(
        "Ideogram4Pipeline",
        ideogram_4,
        _HALF,
        _HALF,
        arguments={"max_sequence_length": 64},
    ),
)
"""The families of this file."""
