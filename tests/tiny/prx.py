"""PRX, with T5Gemma's encoder, and PRX Pixel, which has Qwen 3's and denoises pixels themselves."""

from __future__ import annotations

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import qwen3_encoder, t5gemma_encoder
from tests.tiny.trained_tokenizers import gemma_tokenizer, qwen_tokenizer

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


def _pixel() -> PRXPixelPipeline:
    with random_weights():
        tokenizer = qwen_tokenizer()
        transformer = strengthened(
            PRXTransformer2DModel(
                in_channels=3,
                context_in_dim=_WIDTH,
                hidden_size=_WIDTH,
                mlp_ratio=2.0,
                num_heads=2,
                depth=2,
                axes_dim=[4, 4],
                bottleneck_size=8,
                resolution_embeds=True,
            )
        )
        with torch.no_grad():
            transformer.final_layer.linear.weight.mul_(0.3)  # it paints the picture: a pixel is in -1..1
        return PRXPixelPipeline(
            tokenizer=tokenizer,
            text_encoder=qwen3_encoder(tokenizer, _WIDTH).model,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            prompt_max_tokens=48,
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
    Family("PRXPixelPipeline", _pixel, 16, 16, arguments={"use_resolution_binning": False}),
)
"""The families of this file."""
