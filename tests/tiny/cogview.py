"""CogView 3 Plus and CogView 4: three sizes beside the text; CogView 4's texts are as long as they are."""

from __future__ import annotations

from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import glm_encoder, t5_encoder
from tests.tiny.trained_tokenizers import glm_tokenizer, t5_tokenizer

_WIDTH = 16


def _third() -> CogView3PlusPipeline:
    with random_weights():
        tokenizer = t5_tokenizer()
        return CogView3PlusPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=2),
            transformer=strengthened(
                CogView3PlusTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=2,
                    num_attention_heads=2,
                    attention_head_dim=_WIDTH // 2,
                    text_embed_dim=_WIDTH,
                    time_embed_dim=_WIDTH,
                    condition_dim=4,
                    pos_embed_max_size=8,
                    sample_size=8,
                )
            ),
            scheduler=CogVideoXDDIMScheduler(
                prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
            ),
        )


def _fourth() -> CogView4Pipeline:
    with random_weights():
        tokenizer = glm_tokenizer()
        return CogView4Pipeline(
            tokenizer=tokenizer,
            text_encoder=glm_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=2),
            transformer=strengthened(
                CogView4Transformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=2,
                    num_attention_heads=2,
                    attention_head_dim=_WIDTH // 2,
                    text_embed_dim=_WIDTH,
                    time_embed_dim=_WIDTH,
                    condition_dim=4,
                    pos_embed_max_size=8,
                    sample_size=8,
                    rope_axes_dim=(8, 8),
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.25, max_shift=0.75
            ),
        )


COGVIEW = (
    Family("CogView3PlusPipeline", _third, 16, 16, arguments={"max_sequence_length": 48}),
    Family("CogView4Pipeline", _fourth, 16, 16, arguments={"max_sequence_length": 128}),
)
"""The families of this file."""
