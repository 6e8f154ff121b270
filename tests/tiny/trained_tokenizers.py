"""Tokenizers trained in code, for the families' pipelines.

Every tokenizer spells any text. The words of `_WORDS` are a token each to those of large models; BERT's and
GLM's know letters and frequent pairs, ByT5's bytes.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertTokenizer,
    ByT5Tokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

_WORDS = """
a an the of on in at with and by over under beside left right top bottom center small large one two three
red green blue yellow orange purple black white gray circle square triangle star ring cross picture photo
beautiful sunset mountains lake reflection forest sea sky cat dog fox house blurry low quality
system user assistant Describe image detailing color shape size texture quantity text spatial relationships
objects background You are AI that reasons about descriptions give structured responses focusing object
attribution actions without speculation
"""
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()"
_PAIRS = "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le"
CLIP_WINDOW = 77
"""Tokens of CLIP's window, those of the ends included."""
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


def t5_tokenizer(length: int = 512) -> T5Tokenizer:
    """T5's Unigram pieces: words, and printable ASCII a letter; anything else is unknown."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -3.0) for word in _words()]
    pieces += [(letter, -10.0) for letter in letters]
    pieces += [(f"<extra_id_{n}>", 0.0) for n in (1, 0)]
    return T5Tokenizer(vocab=pieces, extra_ids=2, model_max_length=length)


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


def gemma_tokenizer(length: int = 512) -> GemmaTokenizer:
    """Gemma's BPE with a fall-back to bytes; a text begins with <bos>."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    vocab, merges = _byte_fallback(marks)
    return GemmaTokenizer(
        vocab=vocab, merges=merges, model_max_length=length, padding_side="right", add_bos_token=True
    )


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


def bert_tokenizer() -> BertTokenizer:
    """BERT's WordPiece of letters and frequent pairs, lower case, between [CLS] and [SEP]."""
    pieces = [*_LETTERS, *_PAIRS.split()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, model_max_length=77)


def byt5_tokenizer() -> ByT5Tokenizer:
    """ByT5's bytes, with few sentinels."""
    return ByT5Tokenizer(extra_ids=2)


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
