"""Tiny Bria FIBO and FIBO 2 with random weights."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLWan,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
)
from diffusers.pipelines.bria_fibo2.pipeline_bria_fibo2 import TEXT_ENCODER_OUT_LAYERS
from transformers import SmolLM3Config, SmolLM3ForCausalLM

from tests.tiny.family import Family, random_weights
from tests.tiny.image_parts import SIDE, flow_scheduler
from tests.tiny.redrawn import redrawn
from tests.tiny.text_encoders import qwen3_vl_encoder
from tests.tiny.trained_tokenizers import llama_tokenizer, qwen_tokenizer

_WIDTH = 16
"""Numbers of a token's embedding."""
_FIRST_TOKEN = 128_000
"""The pipeline reads an empty text as this token of SmolLM 3."""
_HALF = SIDE // 2


def bria_fibo() -> BriaFiboPipeline:
    """A layer of the text encoder for each block; texts as long as the longer of the two; 4 x 4 latents."""
    tokenizer = llama_tokenizer()
    with random_weights():
        encoder = SmolLM3ForCausalLM(
            SmolLM3Config(
                vocab_size=_FIRST_TOKEN + 1,
                hidden_size=_WIDTH,
                intermediate_size=_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=2048,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                tie_word_embeddings=True,
            )
        )
        transformer = BriaFiboTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * _WIDTH,
            axes_dims_rope=[4, 6, 6],
            text_encoder_dim=_WIDTH,
        )
        vae = AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 2, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, False, False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
            in_channels=12,
            out_channels=12,
            patch_size=2,
        )
        return BriaFiboPipeline(
            transformer=redrawn(transformer),
            scheduler=flow_scheduler(),
            vae=redrawn(vae),
            text_encoder=redrawn(encoder),
            tokenizer=tokenizer,
        )


def bria_fibo_2() -> BriaFibo2Pipeline:
    """Bundles of three layers of Qwen 3 VL; a text of any length becomes eight tokens.

    Its processor needs torchvision, which nothing else here does: the tokenizer stands in its place.
    """
    tokenizer = qwen_tokenizer()
    layers = max(layer for bundle in TEXT_ENCODER_OUT_LAYERS for layer in bundle)
    with random_weights():
        transformer = BriaFibo2Transformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=len(TEXT_ENCODER_OUT_LAYERS),
            n_refiner_layers=1,
            n_heads=2,
            cap_feat_dim=3 * _WIDTH,
            injection_layer_ids=tuple(range(1, len(TEXT_ENCODER_OUT_LAYERS))),
            perceiver_num_layers=1,
            min_num_gist_tokens=8,
            max_num_gist_tokens=8,
            gist_step=8,
            gist_min_text_len=8,
            gist_max_text_len=64,
            axes_dims=(4, 6, 6),
            axes_lens=(64, 64, 64),
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
        return BriaFibo2Pipeline(
            transformer=redrawn(transformer),
            scheduler=flow_scheduler(),
            vae=redrawn(vae),
            text_encoder=qwen3_vl_encoder(tokenizer, _WIDTH, layers),
            processor=tokenizer,
        )


FIBO = (
    Family("BriaFiboPipeline", bria_fibo, SIDE, SIDE, arguments={"max_sequence_length": 64}),
    Family("BriaFibo2Pipeline", bria_fibo_2, _HALF, _HALF),
)
"""The families of this file."""
