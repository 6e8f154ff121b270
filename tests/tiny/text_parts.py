"""Tokenizers trained in code, and tiny text encoders with random weights, for the families' pipelines.

Every tokenizer spells any text; the words of `_WORDS` are a token each. Encoders are built inside
`random_weights`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

_WORDS = """
a an the of on in at with and by over under beside left right top bottom center small large one two three
red green blue yellow orange purple black white gray circle square triangle star ring cross picture photo
beautiful sunset mountains lake reflection forest sea sky cat dog fox house blurry low quality
system user assistant Describe image detailing color shape size texture quantity text spatial relationships
objects background You are AI that reasons about descriptions give structured responses focusing object
attribution actions without speculation
"""
CLIP_WINDOW = 77
"""Tokens of CLIP's window, those of the ends included."""
_SPREAD = 0.2
"""Standard deviation of weights: at these widths a layer then changes what it is given, so words meet."""
_MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE, for `CLIP_WINDOW` tokens."""
    letters = sorted(ByteLevel.alphabet())
    merges = _merges("", "</w>")
    ends = [letter + "</w>" for letter in letters]
    vocab = _numbered([*letters, *ends, *_joined(merges), "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_WINDOW)


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


def t5_tokenizer(length: int = 512) -> T5Tokenizer:
    """T5's Unigram pieces: words, and printable ASCII a letter; anything else is unknown."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -3.0) for word in _words()]
    pieces += [(letter, -10.0) for letter in letters]
    pieces += [(f"<extra_id_{n}>", 0.0) for n in (1, 0)]
    return T5Tokenizer(vocab=pieces, extra_ids=2, model_max_length=length)


def t5_encoder(tokenizer: T5Tokenizer, width: int = 32) -> T5EncoderModel:
    """T5's encoder [B, L, width]."""
    return T5EncoderModel(T5Config(**_t5_sizes(tokenizer, width))).eval()


def umt5_encoder(tokenizer: T5Tokenizer, width: int = 32) -> UMT5EncoderModel:
    """UMT5's encoder [B, L, width]: as T5's, with position biases in every layer."""
    return UMT5EncoderModel(UMT5Config(**_t5_sizes(tokenizer, width))).eval()


def qwen_tokenizer(length: int = 1024) -> Qwen2Tokenizer:
    """Qwen's byte-level BPE with its chat template and the marks of pictures."""
    letters = sorted(ByteLevel.alphabet())
    merges = _merges("Ġ")
    vocab = _numbered([*letters, *_joined(merges), "<|endoftext|>"])
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, model_max_length=length)
    marks = ["im_start", "im_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    tokenizer.chat_template = _CHAT
    return tokenizer


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


def gemma_tokenizer(length: int = 512) -> GemmaTokenizer:
    """Gemma's BPE with a fall-back to bytes; a text begins with <bos>."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocab, merges = _byte_fallback(marks)
    return GemmaTokenizer(
        vocab=vocab, merges=merges, model_max_length=length, padding_side="right", add_bos_token=True
    )


def gemma2_encoder(tokenizer: GemmaTokenizer, width: int = 32) -> Gemma2Model:
    """Gemma 2 [B, L, width]."""
    sizes = _decoder_sizes(tokenizer, width, 2)
    return Gemma2Model(Gemma2Config(**sizes, head_dim=16, query_pre_attn_scalar=16)).eval()


def llama_tokenizer(length: int = 512) -> LlamaTokenizer:
    """Llama 2's BPE with a fall-back to bytes; a text begins with <s>, and <unk> pads it."""
    vocab, merges = _byte_fallback(["<unk>", "<s>", "</s>"])
    return LlamaTokenizer(
        vocab=vocab,
        merges=merges,
        model_max_length=length,
        pad_token="<unk>",
        padding_side="right",
        add_bos_token=True,
    )


def llama_encoder(tokenizer: LlamaTokenizer, width: int = 32, layers: int = 2) -> LlamaForCausalLM:
    """Llama: `layers` + 1 hidden states [B, L, width]; `.model` is the part without the head."""
    return LlamaForCausalLM(LlamaConfig(**_decoder_sizes(tokenizer, width, layers))).eval()


def _words() -> list[str]:
    return list(dict.fromkeys(_WORDS.split()))


def _merges(space: str, end: str = "") -> list[tuple[str, str]]:
    """The merges that make a token of each word, with `end` after its last letter, and of `space` + word."""
    learned = list(_learned(end))
    return learned + [(space, word + end) for word in _words() if space]


@cache
def _learned(end: str) -> tuple[tuple[str, str], ...]:
    """The merges that BPE learns from `_WORDS`, the same every time: of equals it takes the last by alphabet.

    Written out: the order of equals differs from run to run in `tokenizers.trainers.BpeTrainer`.
    """
    spelled = [[*word[:-1], word[-1] + end] for word in _words()]
    merges: list[tuple[str, str]] = []
    while counted := Counter(pair for tokens in spelled for pair in pairwise(tokens)):
        best = max(counted, key=lambda pair: (counted[pair], pair))
        merges.append(best)
        for tokens in spelled:
            for at in range(len(tokens) - 2, -1, -1):
                if tuple(tokens[at : at + 2]) == best:
                    tokens[at : at + 2] = ["".join(best)]
    return tuple(merges)


def _joined(merges: list[tuple[str, str]]) -> list[str]:
    return [left + right for left, right in merges]


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _byte_fallback(marks: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a SentencePiece BPE: `marks`, 256 bytes, letters, words with ▁ for a space."""
    merges = _merges("▁")
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    vocab = _numbered([*marks, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *_joined(merges)])
    return vocab, merges


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
