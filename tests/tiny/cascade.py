"""Tiny Stable Cascade and Würstchen: a prior and a decoder in one pipeline."""

from __future__ import annotations

import torch
from diffusers import (
    DDPMWuerstchenScheduler,
    DiffusionPipeline,
    StableCascadeCombinedPipeline,
    StableCascadeUNet,
    WuerstchenCombinedPipeline,
)
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel, WuerstchenDiffNeXt, WuerstchenPrior

from tests.tiny.family import Family, random_weights
from tests.tiny.redrawn import redrawn
from tests.tiny.text_parts import clip_text_encoder, clip_tokenizer

_WIDTH = 32
"""Numbers of a token's embedding."""
_EMBEDDING = 4
"""Channels of the embedding that the prior gives and the decoder takes."""
_SIDE = 40
"""Pixels: one position of the prior, 10 x 10 of the decoder, 4 x 4 pixels for each."""


def stable_cascade() -> DiffusionPipeline:
    """U-Nets of two levels on pooled text; the decoder is not guided."""
    with random_weights():
        tokenizer = clip_tokenizer()
        encoder = clip_text_encoder(tokenizer, _WIDTH, projected=True)
        prior = StableCascadeUNet(
            in_channels=_EMBEDDING,
            out_channels=_EMBEDDING,
            clip_text_in_channels=_WIDTH,
            clip_text_pooled_in_channels=_WIDTH,
            clip_image_in_channels=_WIDTH,
            **_unet_sizes(),
        )
        decoder = StableCascadeUNet(
            in_channels=4,
            out_channels=4,
            patch_size=2,
            clip_text_pooled_in_channels=_WIDTH,
            effnet_in_channels=_EMBEDDING,
            timestep_conditioning_type=("sca",),
            **_unet_sizes(),
        )
        return StableCascadeCombinedPipeline(
            tokenizer=tokenizer,
            text_encoder=encoder,
            decoder=redrawn(decoder),
            scheduler=DDPMWuerstchenScheduler(),
            vqgan=_vqgan(0.01),
            prior_prior=redrawn(prior),
            prior_text_encoder=encoder,
            prior_tokenizer=tokenizer,
            prior_scheduler=DDPMWuerstchenScheduler(),
        )


def wuerstchen() -> DiffusionPipeline:
    """Its denoisers give a bare tensor, not an output object."""
    with random_weights():
        tokenizer = clip_tokenizer()
        decoder = WuerstchenDiffNeXt(
            c_r=8,
            c_cond=16,
            c_hidden=[16],
            nhead=[2],
            blocks=[1],
            level_config=["CTA"],
            inject_effnet=[True],
            effnet_embd=_EMBEDDING,
            clip_embd=_WIDTH,
        )
        prior = WuerstchenPrior(c_in=_EMBEDDING, c=16, c_cond=_WIDTH, c_r=8, depth=1, nhead=2)
        redrawn(decoder)
        redrawn(prior)
        with torch.no_grad():
            # Half of what these give divides the other half: small divisors would let rounding grow.
            decoder.clf[1].weight.mul_(0.5)
            prior.out[1].weight.mul_(0.5)
        return WuerstchenCombinedPipeline(
            tokenizer=tokenizer,
            text_encoder=clip_text_encoder(tokenizer, _WIDTH),
            decoder=decoder,
            scheduler=DDPMWuerstchenScheduler(),
            vqgan=_vqgan(0.02),
            prior_tokenizer=tokenizer,
            prior_text_encoder=clip_text_encoder(tokenizer, _WIDTH),
            prior_prior=prior,
            prior_scheduler=DDPMWuerstchenScheduler(),
        )


def _unet_sizes() -> dict[str, object]:
    return {
        "timestep_ratio_embedding_dim": 8,
        "conditioning_dim": 16,
        "block_out_channels": (16, 16),
        "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1),
        "switch_level": (False,),
    }


def _vqgan(contrast: float) -> PaellaVQModel:
    """The last decoder; `contrast` suits latents that are a hundred times as large as noise."""
    vqgan = redrawn(PaellaVQModel(levels=2, bottleneck_blocks=1, embed_dim=16, num_vq_embeddings=16))
    with torch.no_grad():
        vqgan.out_block[0].weight.mul_(contrast)
        vqgan.out_block[0].bias.fill_(0.5)
    return vqgan


_ARGUMENTS = {"prior_num_inference_steps": 2}
CASCADE = (
    Family(
        "StableCascadeCombinedPipeline",
        stable_cascade,
        _SIDE,
        _SIDE,
        guidance="prior_guidance_scale",
        arguments=_ARGUMENTS,
    ),
    Family(
        "WuerstchenCombinedPipeline",
        wuerstchen,
        _SIDE,
        _SIDE,
        guidance="prior_guidance_scale",
        arguments=_ARGUMENTS,
    ),
)
"""The families of this file. diffusers 0.42 saves them, but cannot load their `PaellaVQModel`."""
