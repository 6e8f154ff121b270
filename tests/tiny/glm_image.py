"""GLM-Image: a language model writes 256 codes of a sketch and the picture's, then the denoiser begins."""

from __future__ import annotations

from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from transformers import (
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    PreTrainedTokenizerFast,
)

from tests.tiny.family import Family, random_weights
from tests.tiny.kl_autoencoder import kl_autoencoder
from tests.tiny.strengthened import strengthened
from tests.tiny.text_encoders import byt5_encoder
from tests.tiny.trained_tokenizers import byt5_tokenizer

_WIDTH = 16
_CODES = 16
_START, _END = _CODES, _CODES + 1
"""A picture's ends, numbered after its codes as in the published vocabulary."""
_MARKS = {
    "bos_token": f"<|dit_token_{_START}|>",
    "image_token": "<|image|>",
    "grid_bos_token": "<sop>",
    "grid_eos_token": "<eop>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<unk>",
}
_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def _glm_image() -> GlmImagePipeline:
    with random_weights():
        tokenizer = byt5_tokenizer()
        processor = _processor()
        return GlmImagePipeline(
            tokenizer=tokenizer,
            text_encoder=byt5_encoder(tokenizer, _WIDTH),
            processor=processor,
            vision_language_encoder=_language_model(processor.tokenizer),
            vae=kl_autoencoder(4, 8, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
            transformer=strengthened(
                GlmImageTransformer2DModel(
                    in_channels=4,
                    out_channels=4,
                    num_layers=2,
                    num_attention_heads=2,
                    attention_head_dim=_WIDTH // 2,
                    text_embed_dim=_WIDTH,
                    time_embed_dim=_WIDTH,
                    condition_dim=8,
                    prior_vq_quantizer_codebook_size=_CODES,
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.25, max_shift=0.75
            ),
        )


def _processor() -> GlmImageProcessor:
    codes = [f"<|dit_token_{number}|>" for number in range(_END + 1)]
    marks = [mark for mark in _MARKS.values() if mark not in codes]
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    vocab = {token: number for number, token in enumerate([*codes, *marks, *letters])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    extra = {name: _MARKS[name] for name in ("image_token", "grid_bos_token", "grid_eos_token")}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{name: mark for name, mark in _MARKS.items() if name not in extra},
        extra_special_tokens=extra,
        padding_side="left",
    )
    return GlmImageProcessor(GlmImageImageProcessor(), fast, chat_template=_TEMPLATE)


def _language_model(tokenizer: PreTrainedTokenizerFast) -> GlmImageForConditionalGeneration:
    config = GlmImageConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": _WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vision_vocab_size": _CODES,  # it can write no end: a picture has all its codes
            "initializer_range": 0.5,
            "max_position_embeddings": 1024,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": _END,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
                "partial_rotary_factor": 1.0,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 8,
            "num_heads": 1,
            "intermediate_size": 8,
            "image_size": 32,
            "patch_size": 16,
        },
        vq_config={"embed_dim": 8, "num_embeddings": _CODES, "latent_channels": 8},
        image_token_id=tokenizer.convert_tokens_to_ids(_MARKS["image_token"]),
        image_start_token_id=_START,
        image_end_token_id=_END,
    )
    return GlmImageForConditionalGeneration(config).eval()


GLM_IMAGE = (Family("GlmImagePipeline", _glm_image, 64, 64),)
"""The families of this file."""
