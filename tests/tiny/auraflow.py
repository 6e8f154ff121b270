"""AuraFlow: UMT5 and learned register tokens."""

from __future__ import annotations

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import umt5_encoder
from tests.tiny.trained_tokenizers import t5_tokenizer

_WIDTH = 16


def _aura_flow() -> AuraFlowPipeline:
    with random_weights():
        tokenizer = t5_tokenizer()
        return AuraFlowPipeline(
            tokenizer=tokenizer,
            text_encoder=umt5_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=2),
            transformer=strengthened(
                AuraFlowTransformer2DModel(
                    sample_size=8,
                    in_channels=4,
                    out_channels=4,
                    num_mmdit_layers=1,
                    num_single_dit_layers=1,
                    num_attention_heads=2,
                    attention_head_dim=_WIDTH // 2,
                    joint_attention_dim=_WIDTH,
                    caption_projection_dim=_WIDTH,
                    pos_embed_max_size=64,
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        )


AURA_FLOW = (Family("AuraFlowPipeline", _aura_flow, 16, 16, arguments={"max_sequence_length": 48}),)
"""The families of this file."""
