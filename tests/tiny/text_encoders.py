"""Tiny text encoders with random weights, for the families' pipelines; build them inside `random_weights`.

Those that see pictures have a smallest vision tower; their processors need torchvision, which nothing else
here does, so pipelines get the tokenizer in its place.
"""

from __future__ import annotations

from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from tests.tiny.redrawn import redrawn
from tests.tiny.trained_tokenizers import CLIP_WINDOW

_SPREAD = 0.2
"""Standard deviation of weights: at these widths a layer then changes what it is given, so words meet."""
_MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}


def clip_text_encoder(
    tokenizer: CLIPTokenizer, width: int = 32, *, projected: bool = False
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """CLIP's text encoder [B, 77, width]; `projected` adds the pooled text's projection [B, width]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu",
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5_encoder(tokenizer: T5Tokenizer, width: int = 32) -> T5EncoderModel:
    """T5's encoder [B, L, width]."""
    return T5EncoderModel(T5Config(**_t5_sizes(tokenizer, width))).eval()


def umt5_encoder(tokenizer: T5Tokenizer, width: int = 32) -> UMT5EncoderModel:
    """UMT5's encoder [B, L, width]: as T5's, with position biases in every layer."""
    return UMT5EncoderModel(UMT5Config(**_t5_sizes(tokenizer, width))).eval()


def byt5_encoder(tokenizer: ByT5Tokenizer, width: int) -> T5EncoderModel:
    """T5's gated encoder [B, L, width] over bytes."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def bert_encoder(tokenizer: BertTokenizer, width: int) -> BertModel:
    """BERT [B, L, width]."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=77,
        initializer_range=_SPREAD,
    )
    return BertModel(config).eval()


def qwen3_encoder(tokenizer: Qwen2Tokenizer, width: int = 32, layers: int = 2) -> Qwen3ForCausalLM:
    """Qwen 3: `layers` + 1 hidden states [B, L, width]; `.model` is the part without the head."""
    sizes = _decoder_sizes(tokenizer, width, layers)
    return Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=16)).eval()


def qwen_vl_encoder(tokenizer: Qwen2Tokenizer, width: int = 32) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen 2.5 VL with its eyes shut: hidden states [B, L, width], and a smallest vision tower."""
    config = Qwen2_5_VLConfig(
        text_config={**_decoder_sizes(tokenizer, width, 2), "rope_parameters": _MROPE},
        vision_config={**_vision_sizes(width), "fullatt_block_indexes": [0]},
        **_vision_marks(tokenizer),
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def qwen3_vl_encoder(
    tokenizer: Qwen2Tokenizer, width: int = 32, layers: int = 2
) -> Qwen3VLForConditionalGeneration:
    """Qwen 3 VL: `layers` + 1 hidden states [B, L, width]; `.model` is the part without the head."""
    number = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10_000.0},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": width,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    return redrawn(Qwen3VLForConditionalGeneration(config))


def mistral_encoder(tokenizer: Qwen2Tokenizer, width: int = 32) -> Mistral3ForConditionalGeneration:
    """Mistral 3 with its eyes shut: hidden states [B, L, width], and a smallest vision tower."""
    config = Mistral3Config(
        text_config={**_decoder_sizes(tokenizer, width, 2), "model_type": "mistral", "head_dim": 16},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    return Mistral3ForConditionalGeneration(config).eval()


def gemma_encoder(tokenizer: GemmaTokenizer, width: int) -> GemmaModel:
    """Gemma [B, L, width], the first edition."""
    return GemmaModel(GemmaConfig(**_small_decoder_sizes(tokenizer, width))).eval()


def gemma2_encoder(tokenizer: GemmaTokenizer, width: int = 32) -> Gemma2Model:
    """Gemma 2 [B, L, width]."""
    sizes = _decoder_sizes(tokenizer, width, 2)
    return Gemma2Model(Gemma2Config(**sizes, head_dim=16, query_pre_attn_scalar=16)).eval()


def t5gemma_encoder(tokenizer: GemmaTokenizer, width: int) -> T5GemmaEncoder:
    """The encoding half of T5Gemma [B, L, width]; its configuration names itself as `encoder`."""
    sizes = {**_small_decoder_sizes(tokenizer, width), "query_pre_attn_scalar": 8, "dropout_rate": 0.0}
    # diffusers loads the encoder of the whole model's configuration, and the encoder takes its own alone.
    return T5GemmaEncoder(T5GemmaModuleConfig(**sizes, encoder=sizes, decoder=sizes)).eval()


def llama_encoder(tokenizer: LlamaTokenizer, width: int = 32, layers: int = 2) -> LlamaForCausalLM:
    """Llama: `layers` + 1 hidden states [B, L, width]; `.model` is the part without the head."""
    return LlamaForCausalLM(LlamaConfig(**_decoder_sizes(tokenizer, width, layers))).eval()


def glm_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> GlmModel:
    """GLM [B, L, width]."""
    return GlmModel(GlmConfig(**_small_decoder_sizes(tokenizer, width))).eval()


def _t5_sizes(tokenizer: T5Tokenizer, width: int) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 64,
    }


def _vision_sizes(width: int) -> dict[str, int]:
    return {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}


def _vision_marks(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    marks = {
        "image": "image_pad",
        "video": "video_pad",
        "vision_start": "vision_start",
        "vision_end": "vision_end",
    }
    return {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for key, mark in marks.items()}


def _decoder_sizes(
    tokenizer: Qwen2Tokenizer | GemmaTokenizer | LlamaTokenizer, width: int, layers: int
) -> dict[str, int | float | None]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 16),
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": _SPREAD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _small_decoder_sizes(
    tokenizer: GemmaTokenizer | PreTrainedTokenizerFast, width: int
) -> dict[str, int | float]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "initializer_range": _SPREAD,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
