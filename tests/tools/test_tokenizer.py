from __future__ import annotations

import random

import pytest

from tools.shapes.grammar import pairs, prompt_of, random_scene, words
from tools.shapes.tokenizer import WINDOW, build_tokenizer


def test_each_word_of_the_grammar_is_one_token_and_comes_back() -> None:
    tokenizer = build_tokenizer(words())
    for word in words():
        tokens = tokenizer(word).input_ids[1:-1]
        assert len(tokens) == 1, word
        assert tokenizer.decode(tokens) == word


def test_words_that_share_letters_in_another_order_stay_whole() -> None:
    tokenizer = build_tokenizer(["red", "three", "tree", "an", "orange", "range"])
    for word in ("red", "three", "tree", "an", "orange", "range"):
        assert len(tokenizer(word).input_ids) == 3


@pytest.mark.parametrize("text", ["zygote", "東京", "don't", "ünïcode"])
def test_other_words_are_spelled_and_not_lost(text: str) -> None:
    tokenizer = build_tokenizer(words())
    tokens = tokenizer(text).input_ids[1:-1]
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens).replace(" ", "") == text


def test_the_longest_prompt_fits_the_window() -> None:
    tokenizer, rng = build_tokenizer(words()), random.Random(0)
    lengths = [
        len(tokenizer(prompt_of(random_scene("places", rng, pairs(held_out=False)))).input_ids)
        for _ in range(500)
    ]
    assert max(lengths) == 21
    assert tokenizer.model_max_length == WINDOW == 32
