"""CLIP's tokenizer for the small world: each word of the grammar is one token."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from transformers import CLIPTokenizer

WINDOW: Final = 32
"""Tokens of a text, both ends included; the grammar's longest prompt takes 21."""

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level BPE that makes each of `words` one token; other words cost about one a byte."""
    # GPT-2's alphabet: a printable byte stands for itself, the others for the code points from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = _pieces(word, merges)
        # A later merge never comes before an earlier one, so the words that are whole already stay whole.
        while len(pieces) > 1:
            merges[(pieces[0], pieces[1])] = len(merges)
            pieces = ["".join(pieces[:2]), *pieces[2:]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    vocab = {token: number for number, token in enumerate([*dict.fromkeys(tokens), _BOS, _EOS])}
    # vocab= and merges=: the older vocab_file= and merges_file= are swallowed and leave a vocabulary of 2.
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=WINDOW)


def _pieces(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """`word` as byte-pair encoding leaves it: the earliest merge first, until none fits."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while fitting := [pair for pair in pairwise(pieces) if pair in merges]:
        first, second = min(fitting, key=merges.__getitem__)
        at = next(n for n, pair in enumerate(pairwise(pieces)) if pair == (first, second))
        pieces[at : at + 2] = [first + second]
    return pieces
