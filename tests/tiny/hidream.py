"""A tiny HiDream with random weights: four text encoders and a mixture of experts."""

from __future__ import annotations

from diffusers import HiDreamImagePipeline, HiDreamImageTransformer2DModel, UniPCMultistepScheduler
from diffusers.models import AutoencoderKL

from tests.tiny.family import Family, random_weights
from tests.tiny.redrawn import redrawn
from tests.tiny.text_encoders import clip_text_encoder, llama_encoder, t5_encoder
from tests.tiny.trained_tokenizers import clip_tokenizer, llama_tokenizer, t5_tokenizer

_SIDE = 128
"""Pixels: the pipeline makes any size into 128 times 128 latents, here one for a pixel."""


def hidream() -> HiDreamImagePipeline:
    """CLIP twice, T5 and Llama; two of four experts for a token, with patches of 16 by 16."""
    clip, t5, llama = clip_tokenizer(), t5_tokenizer(), llama_tokenizer()
    with random_weights():
        transformer = HiDreamImageTransformer2DModel(
            patch_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_channels=[32, 32],
            text_emb_dim=64,
            num_routed_experts=4,
            num_activated_experts=2,
            axes_dims_rope=(4, 6, 6),
            max_resolution=(128, 128),
            llama_layers=[0, 1],
        )
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(4,),
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            norm_num_groups=2,
            mid_block_add_attention=False,
            scaling_factor=0.5,
            shift_factor=0.1,
        )
        return HiDreamImagePipeline(
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
            vae=redrawn(vae),
            text_encoder=clip_text_encoder(clip, projected=True),
            tokenizer=clip,
            text_encoder_2=clip_text_encoder(clip, projected=True),
            tokenizer_2=clip,
            text_encoder_3=t5_encoder(t5),
            tokenizer_3=t5,
            text_encoder_4=llama_encoder(llama),
            tokenizer_4=llama,
            transformer=redrawn(transformer),
        )


HIDREAM = (
    Family(
        "HiDreamImagePipeline",
        hidream,
        _SIDE,
        _SIDE,
        arguments={"max_sequence_length": 64},
    ),
)
"""The families of this file."""
