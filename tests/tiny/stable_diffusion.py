"""Stable Diffusion 1, XL and 3, latent consistency and DeepFloyd IF with random weights."""

from __future__ import annotations

from diffusers import (
    DDPMScheduler,
    EulerDiscreteScheduler,
    IFPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, autoencoder, flow_scheduler
from tests.tiny.text_encoders import clip_text_encoder, t5_encoder
from tests.tiny.trained_tokenizers import clip_tokenizer, t5_tokenizer

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion() -> StableDiffusionPipeline:
    """One CLIP encoder of 32. `shapes-random`, which is as large as `shapes`, costs four times as much."""
    tokenizer = clip_tokenizer()
    with random_weights():
        return StableDiffusionPipeline(
            vae=autoencoder(),
            text_encoder=clip_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(32),
            scheduler=PNDMScheduler(
                **_BETAS,
                skip_prk_steps=True,
                set_alpha_to_one=False,
                steps_offset=1,
                timestep_spacing="leading",
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    """Two CLIP encoders of 16 and 32, whose texts meet in 48; pooled text and six time ids beside."""
    first, second = clip_tokenizer(), clip_tokenizer()
    with random_weights():
        return StableDiffusionXLPipeline(
            vae=autoencoder(),
            text_encoder=clip_text_encoder(first, 16),
            tokenizer=first,
            text_encoder_2=clip_text_encoder(second, 32, projected=True),
            tokenizer_2=second,
            unet=_unet(
                48,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=32 + 6 * 8,
                transformer_layers_per_block=(1, 2),
                use_linear_projection=True,
            ),
            scheduler=EulerDiscreteScheduler(**_BETAS, timestep_spacing="leading", steps_offset=1),
            add_watermarker=False,
        )


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Two CLIP encoders of 16 and 32, padded to T5's 64; pooled text of 48."""
    first, second, third = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    with random_weights():
        return StableDiffusion3Pipeline(
            vae=autoencoder(16, shift_factor=0.1),
            text_encoder=clip_text_encoder(first, 16, projected=True),
            tokenizer=first,
            text_encoder_2=clip_text_encoder(second, 32, projected=True),
            tokenizer_2=second,
            text_encoder_3=t5_encoder(third, 64),
            tokenizer_3=third,
            transformer=SD3Transformer2DModel(
                sample_size=SIDE // 8,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=64,
                caption_projection_dim=32,
                pooled_projection_dim=48,
                pos_embed_max_size=16,
                qk_norm="rms_norm",
                dual_attention_layers=(0,),
            ).eval(),
            scheduler=flow_scheduler(dynamic=False),
        )


def latent_consistency() -> LatentConsistencyModelPipeline:
    """Stable Diffusion whose guidance is an embedding beside the timestep's."""
    tokenizer = clip_tokenizer()
    with random_weights():
        return LatentConsistencyModelPipeline(
            vae=autoencoder(),
            text_encoder=clip_text_encoder(tokenizer),
            tokenizer=tokenizer,
            unet=_unet(32, time_cond_proj_dim=16),
            scheduler=LCMScheduler(**_BETAS),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def deepfloyd_if() -> IFPipeline:
    """Pixels without an autoencoder; the UNet predicts the variance beside the noise."""
    tokenizer = t5_tokenizer(77)
    with random_weights():
        return IFPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer),
            unet=_unet(
                32,
                sample_size=32,
                in_channels=3,
                out_channels=6,
                encoder_hid_dim=32,
                addition_embed_type="text",
                addition_embed_type_num_heads=2,
                resnet_time_scale_shift="scale_shift",
            ),
            # IF's own cosine betas divide by almost nothing at first, and would grow rounding by as much.
            scheduler=DDPMScheduler(
                **_BETAS, variance_type="learned_range", thresholding=True, sample_max_value=1.5
            ),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )


def _unet(text_width: int, **others: object) -> UNet2DConditionModel:
    sizes = {"sample_size": SIDE // 8, "in_channels": 4, "out_channels": 4}
    return UNet2DConditionModel(
        **{**sizes, **others},
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=text_width,
    ).eval()


STABLE_DIFFUSION = (
    Family("StableDiffusionPipeline", stable_diffusion, SIDE, SIDE),
    Family("StableDiffusionXLPipeline", stable_diffusion_xl, SIDE, SIDE),
    Family(
        "StableDiffusion3Pipeline",
        stable_diffusion_3,
        SIDE,
        SIDE,
        arguments={"max_sequence_length": 32},
    ),
    Family("LatentConsistencyModelPipeline", latent_consistency, SIDE, SIDE),
    Family(
        "IFPipeline",
        deepfloyd_if,
        32,
        32,
        # Cleaning captions needs bs4 and ftfy.
        arguments={"clean_caption": False},
    ),
)
"""The families of this file."""
