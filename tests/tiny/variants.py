"""Pipelines that sample Stable Diffusion's parts in ways of their own, and other old ones; random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    LDMTextToImagePipeline,
    PriorTransformer,
    StableDiffusion3PAGPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLPAGPipeline,
    StableUnCLIPPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, autoencoder
from tests.tiny.redrawn import redrawn
from tests.tiny.stable_diffusion import stable_diffusion_3, stable_diffusion_xl
from tests.tiny.text_encoders import clip_text_encoder
from tests.tiny.trained_tokenizers import CLIP_WINDOW, clip_tokenizer

_WIDTH = 32
"""Numbers of a token's embedding."""
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def stable_diffusion_pag() -> StableDiffusionPAGPipeline:
    """Perturbed attention: the call replaces the U-Net's attention processors."""
    return StableDiffusionPAGPipeline(**_stable_diffusion())


def stable_diffusion_xl_pag() -> StableDiffusionXLPAGPipeline:
    """Perturbed attention, in Stable Diffusion XL."""
    return StableDiffusionXLPAGPipeline(**_parts(stable_diffusion_xl()), add_watermarker=False)


def stable_diffusion_3_pag() -> StableDiffusion3PAGPipeline:
    """Perturbed attention, in Stable Diffusion 3."""
    return StableDiffusion3PAGPipeline(**_parts(stable_diffusion_3()), pag_applied_layers="1")


def latent_diffusion() -> LDMTextToImagePipeline:
    """Latent diffusion of 2022, with a BERT of its own; it paints one picture a prompt."""
    tokenizer = clip_tokenizer()
    with random_weights():
        bert = LDMBertModel(
            LDMBertConfig(
                vocab_size=len(tokenizer),
                encoder_layers=1,
                encoder_ffn_dim=_WIDTH,
                encoder_attention_heads=2,
                head_dim=16,
                d_model=_WIDTH,
            )
        )
        return LDMTextToImagePipeline(
            vqvae=autoencoder(),
            bert=redrawn(bert),
            tokenizer=tokenizer,
            unet=_unet(),
            scheduler=DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False),
        )


def stable_unclip() -> StableUnCLIPPipeline:
    """A prior gives the picture's embedding, which the U-Net takes, noised, as a class."""
    tokenizer = clip_tokenizer()
    with random_weights():
        prior = redrawn(
            PriorTransformer(
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=1,
                embedding_dim=_WIDTH,
                num_embeddings=CLIP_WINDOW,
            )
        )
        with torch.no_grad():
            # The embedding is multiplied by this at the end.
            prior.clip_std.fill_(1.0)
        return StableUnCLIPPipeline(
            prior_tokenizer=tokenizer,
            prior_text_encoder=clip_text_encoder(tokenizer, _WIDTH, projected=True),
            prior=prior,
            prior_scheduler=DDPMScheduler(prediction_type="sample", clip_sample=True, clip_sample_range=5.0),
            image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=_WIDTH),
            image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            tokenizer=tokenizer,
            text_encoder=clip_text_encoder(tokenizer, _WIDTH),
            unet=_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * _WIDTH),
            scheduler=DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False),
            vae=autoencoder(),
        )


def _stable_diffusion() -> dict[str, Any]:
    """Stable Diffusion's parts, with attention in the middle of the U-Net."""
    tokenizer = clip_tokenizer()
    with random_weights():
        return {
            "vae": autoencoder(),
            "text_encoder": clip_text_encoder(tokenizer, _WIDTH),
            "tokenizer": tokenizer,
            "unet": _unet(),
            "scheduler": DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }


def _unet(**others: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **others,
        sample_size=SIDE // 8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=_WIDTH,
    ).eval()


def _parts(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """A pipeline's components, without those that it does not have."""
    return {name: part for name, part in pipeline.components.items() if part is not None}


VARIANTS = (
    Family("StableDiffusionPAGPipeline", stable_diffusion_pag, SIDE, SIDE),
    Family("StableDiffusionXLPAGPipeline", stable_diffusion_xl_pag, SIDE, SIDE),
    Family(
        "StableDiffusion3PAGPipeline",
        stable_diffusion_3_pag,
        SIDE,
        SIDE,
        arguments={"max_sequence_length": 32},
    ),
    Family("LDMTextToImagePipeline", latent_diffusion, SIDE, SIDE),
    Family("StableUnCLIPPipeline", stable_unclip, SIDE, SIDE, arguments={"prior_num_inference_steps": 2}),
)
"""The families of this file."""
