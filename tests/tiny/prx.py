"""PRX: T5Gemma's encoder, and a transformer whose attention sees the text beside the picture."""

from __future__ import annotations

from diffusers import FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXTransformer2DModel

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.more_text_parts import t5gemma_encoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_parts import gemma_tokenizer

_WIDTH = 16


def _prx() -> PRXPipeline:
    with random_weights():
        tokenizer = gemma_tokenizer()
        return PRXPipeline(
            tokenizer=tokenizer,
            text_encoder=t5gemma_encoder(tokenizer, _WIDTH),
            vae=kl_autoencoder(latent_channels=4, factor=2, shift_factor=0.1),
            transformer=strengthened(
                PRXTransformer2DModel(
                    in_channels=4,
                    context_in_dim=_WIDTH,
                    hidden_size=_WIDTH,
                    mlp_ratio=2.0,
                    num_heads=2,
                    depth=2,
                    axes_dim=[4, 4],
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


PRX = (
    Family(
        "PRXPipeline",
        _prx,
        16,
        16,
        arguments={
            "use_resolution_binning": False,
            "skip_text_cleaning": True,
            "tokenizer_max_length": 48,
        },
    ),
)
"""The families of this file."""
