"""Text encoders that one family alone takes, with their tokenizers; see `text_parts` for the shared ones."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ByT5Tokenizer,
    GemmaConfig,
    GemmaModel,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()"
_PAIRS = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le"
_SPREAD = 0.2
"""Standard deviation of weights: at these widths a layer then changes what it is given, so words meet."""


def bert_tokenizer() -> BertTokenizer:
    """BERT's WordPiece of letters and frequent pairs, lower case, between [CLS] and [SEP]."""
    pieces = [*_LETTERS, *_PAIRS.split()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, model_max_length=77)


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


def byt5_tokenizer() -> ByT5Tokenizer:
    """ByT5's bytes, with few sentinels."""
    return ByT5Tokenizer(extra_ids=2)


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


def gemma_encoder(tokenizer: GemmaTokenizer, width: int) -> GemmaModel:
    """Gemma [B, L, width], the first edition."""
    return GemmaModel(GemmaConfig(**_decoder_sizes(tokenizer, width))).eval()


def t5gemma_encoder(tokenizer: GemmaTokenizer, width: int) -> T5GemmaEncoder:
    """The encoding half of T5Gemma [B, L, width]; its configuration names itself as `encoder`."""
    sizes = {**_decoder_sizes(tokenizer, width), "query_pre_attn_scalar": 8, "dropout_rate": 0.0}
    # diffusers loads the encoder of the whole model's configuration, and the encoder takes its own alone.
    return T5GemmaEncoder(T5GemmaModuleConfig(**sizes, encoder=sizes, decoder=sizes)).eval()


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE of letters and frequent pairs; a text begins with GLM's two marks, and is padded before them."""
    pairs = [(pair[0], pair[1]) for pair in _PAIRS.split()]
    tokens = [
        "<|endoftext|>",
        "[gMASK]",
        "<sop>",
        "<unk>",
        "▁",
        *_LETTERS,
        *(left + right for left, right in pairs),
    ]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=pairs, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    marks = ["[gMASK]", "<sop>"]
    tokenizer.post_processor = TemplateProcessing(
        single=f"{' '.join(marks)} $A", special_tokens=[(mark, vocab[mark]) for mark in marks]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=1024,
    )


def glm_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> GlmModel:
    """GLM [B, L, width]."""
    return GlmModel(GlmConfig(**_decoder_sizes(tokenizer, width))).eval()


def _decoder_sizes(tokenizer: GemmaTokenizer | PreTrainedTokenizerFast, width: int) -> dict[str, int | float]:
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
