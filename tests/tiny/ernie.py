"""A tiny ERNIE-Image with random weights."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLFlux2,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import LlamaTokenizer, Mistral3Config, Mistral3Model

from tests.tiny.family import Family, random_weights
from tests.tiny.redrawn import redrawn
from tests.tiny.trained_tokenizers import llama_tokenizer

_WIDTH = 32
"""Numbers of a token's embedding."""
_SIDE = 32
"""Pixels: 8 x 8 latents of 16 channels."""


def ernie_image() -> ErnieImagePipeline:
    """Texts of any length, padded to the longer of prompt and negative prompt; no prompt enhancer."""
    tokenizer = llama_tokenizer()
    with random_weights():
        transformer = ErnieImageTransformer2DModel(
            hidden_size=32,
            num_attention_heads=2,
            num_layers=1,
            ffn_hidden_size=32,
            in_channels=16,
            out_channels=16,
            text_in_dim=_WIDTH,
            rope_axes_dim=(4, 6, 6),
        )
        vae = AutoencoderKLFlux2(
            latent_channels=4,
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
        )
        return ErnieImagePipeline(
            transformer=redrawn(transformer),
            vae=redrawn(vae),
            text_encoder=_mistral_3(tokenizer),
            tokenizer=tokenizer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def _mistral_3(tokenizer: LlamaTokenizer) -> Mistral3Model:
    """Mistral 3: three hidden states [B, L, _WIDTH], and a smallest vision tower."""
    config = Mistral3Config(
        text_config={
            "model_type": "ministral3",
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": _WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
    )
    return redrawn(Mistral3Model(config))


ERNIE = (Family("ErnieImagePipeline", ernie_image, _SIDE, _SIDE),)
"""The families of this file."""
