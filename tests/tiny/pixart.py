"""PixArt: T5 beside cross-attention, with a mask; Alpha's transformer is given the picture's size besides."""

from __future__ import annotations

from diffusers import (
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import t5_encoder
from tests.tiny.trained_tokenizers import t5_tokenizer

_WIDTH = 24
"""Of the transformer and its texts: divisible by 3, since Alpha embeds three numbers of the size."""
_ARGUMENTS = {"clean_caption": False, "use_resolution_binning": False, "max_sequence_length": 48}


def _alpha() -> PixArtAlphaPipeline:
    # A sample size of 128 is how the pipeline tells a transformer that takes the size of the picture.
    with random_weights():
        tokenizer = t5_tokenizer()
        return PixArtAlphaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer, _WIDTH),
            transformer=_transformer(sample_size=128),
            vae=kl_autoencoder(latent_channels=4, factor=2),
            scheduler=DPMSolverMultistepScheduler(),
        )


def _sigma() -> PixArtSigmaPipeline:
    with random_weights():
        tokenizer = t5_tokenizer()
        return PixArtSigmaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer, _WIDTH),
            transformer=_transformer(sample_size=8),
            vae=kl_autoencoder(latent_channels=4, factor=2),
            scheduler=DPMSolverMultistepScheduler(),
        )


def _transformer(sample_size: int) -> PixArtTransformer2DModel:
    return strengthened(
        PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=_WIDTH // 2,
            num_layers=2,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=_WIDTH,
            caption_channels=_WIDTH,
            sample_size=sample_size,
        ),
        factor=1.4,
    )


PIXART = (
    Family("PixArtAlphaPipeline", _alpha, 16, 16, arguments=_ARGUMENTS),
    Family("PixArtSigmaPipeline", _sigma, 16, 16, arguments=_ARGUMENTS),
)
"""The families of this file."""
