from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny.trained_tokenizers import (
    clip_tokenizer,
    gemma_tokenizer,
    llama_tokenizer,
    qwen_tokenizer,
    t5_tokenizer,
)

TOKENIZERS = [clip_tokenizer, gemma_tokenizer, llama_tokenizer, qwen_tokenizer, t5_tokenizer]
PROMPTS = [
    "a cat",
    "a dog",
    "a cat left of a dog",
    "three zebras: 12 words that no tokenizer here was taught!",
]

of_every_kind = pytest.mark.parametrize("make", TOKENIZERS, ids=lambda make: make.__name__)


@of_every_kind
def test_prompts_of_different_words_have_different_ids_and_longer_ones_have_more(
    make: Callable[[], Any],
) -> None:
    ids = [make()(prompt).input_ids for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in ids}) == len(PROMPTS)
    assert len(ids[0]) == len(ids[1]) < len(ids[2]) < len(ids[3])


@of_every_kind
def test_a_tokenizer_spells_a_prompt_of_any_words(make: Callable[[], Any]) -> None:
    tokenizer = make()
    spelled = tokenizer.decode(tokenizer(PROMPTS[3]).input_ids, skip_special_tokens=True)
    assert spelled.replace(" ", "") == PROMPTS[3].replace(" ", "")


@of_every_kind
def test_a_saved_tokenizer_gives_the_same_ids(make: Callable[[], Any], tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert loaded(PROMPTS).input_ids == tokenizer(PROMPTS).input_ids
    assert loaded.model_max_length == tokenizer.model_max_length


def test_qwen_images_template_costs_the_34_tokens_that_its_pipeline_cuts_off() -> None:
    template = (
        "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, "
        "text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
    )
    assert len(qwen_tokenizer()(template).input_ids) == 34
