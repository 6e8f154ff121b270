"""Kolors: SDXL's U-Net with ChatGLM's texts, which diffusers itself has."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import EulerDiscreteScheduler, KolorsPipeline, UNet2DConditionModel
from diffusers.pipelines.kolors import ChatGLMModel, ChatGLMTokenizer
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig
from sentencepiece import SentencePieceTrainer

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened

_WIDTH = 16
_SPELLED = (
    "the quick brown fox jumps over a lazy dog, photo of two small cats: red, blue and green!",
    "a picture of mountains beside the sea with its reflection; (sunset) 'words' \"quoted\" - 0123456789.",
)


def _kolors() -> KolorsPipeline:
    with random_weights():
        tokenizer = ChatGLMTokenizer(vocab_file=str(Path(_vocabulary().name) / "tokenizer.model"))
        return KolorsPipeline(
            tokenizer=tokenizer,
            text_encoder=_chat_glm(tokenizer),
            vae=kl_autoencoder(latent_channels=4, factor=2, force_upcast=False),
            unet=strengthened(
                UNet2DConditionModel(
                    sample_size=8,
                    block_out_channels=(8, 16),
                    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                    layers_per_block=1,
                    attention_head_dim=(1, 2),
                    norm_num_groups=4,
                    use_linear_projection=True,
                    cross_attention_dim=_WIDTH,
                    encoder_hid_dim=_WIDTH,
                    encoder_hid_dim_type="text_proj",
                    addition_embed_type="text_time",
                    addition_time_embed_dim=4,
                    projection_class_embeddings_input_dim=_WIDTH + 6 * 4,
                )
            ),
            scheduler=EulerDiscreteScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.014, num_train_timesteps=1100
            ),
        )


def _chat_glm(tokenizer: ChatGLMTokenizer) -> ChatGLMModel:
    config = ChatGLMConfig(
        num_layers=2,
        padded_vocab_size=tokenizer.vocab_size,
        hidden_size=_WIDTH,
        ffn_hidden_size=2 * _WIDTH,
        kv_channels=_WIDTH // 2,
        num_attention_heads=2,
        seq_length=256,  # the pipeline pads to so many tokens, whatever max_sequence_length it is given
        multi_query_attention=True,
        multi_query_group_num=1,
        add_qkv_bias=True,
        original_rope=True,
    )
    encoder = ChatGLMModel(config, empty_init=False)
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "norm" in name:
                weight.fill_(1.0)  # diffusers leaves these as the memory was
    return strengthened(encoder)


@cache
def _vocabulary() -> TemporaryDirectory[str]:
    """A folder with tokenizer.model, which the tokenizer reads again when it is saved."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(_SPELLED),
        model_writer=model,
        model_type="bpe",
        vocab_size=128,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    folder = TemporaryDirectory()
    (Path(folder.name) / "tokenizer.model").write_bytes(model.getvalue())
    return folder


KOLORS = (
    Family(
        "KolorsPipeline",
        _kolors,
        16,
        16,
    ),
)
"""The families of this file."""
