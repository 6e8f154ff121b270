"""Lumina-Next, and Lumina 2, whose transformer cuts texts to the longest of its batch."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import gemma2_encoder, gemma_encoder
from tests.tiny.trained_tokenizers import gemma_tokenizer

_WIDTH = 32
_FACTOR = 8
"""Pixels a latent and side; the pipelines know no other."""


def _next() -> LuminaPipeline:
    with random_weights():
        tokenizer = gemma_tokenizer()
        transformer = LuminaNextDiT2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=_WIDTH,
            num_layers=2,
            num_attention_heads=4,
            num_kv_heads=2,
            multiple_of=16,
            cross_attention_dim=_WIDTH,
        )
        with torch.no_grad():
            transformer.pad_token.zero_()  # diffusers leaves it as the memory was
        return LuminaPipeline(
            tokenizer=tokenizer,
            text_encoder=gemma_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=_FACTOR),
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )


def _second() -> Lumina2Pipeline:
    with random_weights():
        tokenizer = gemma_tokenizer()
        return Lumina2Pipeline(
            tokenizer=tokenizer,
            text_encoder=gemma2_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=_FACTOR, shift_factor=0.1),
            transformer=strengthened(
                Lumina2Transformer2DModel(
                    sample_size=8,
                    in_channels=4,
                    hidden_size=_WIDTH,
                    num_layers=2,
                    num_refiner_layers=1,
                    num_attention_heads=4,
                    num_kv_heads=2,
                    multiple_of=16,
                    axes_dim_rope=(4, 2, 2),
                    axes_lens=(128, 16, 16),
                    cap_feat_dim=_WIDTH,
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )


LUMINA = (
    Family("LuminaPipeline", _next, 32, 32, arguments={"clean_caption": False}),
    # The pipeline's own words before the prompt would fill so short a text.
    Family("Lumina2Pipeline", _second, 32, 32, arguments={"system_prompt": "", "max_sequence_length": 64}),
)
"""The families of this file."""
