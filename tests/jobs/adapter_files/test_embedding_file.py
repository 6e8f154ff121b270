"""The header of an embedding's file says what it is; tokens are told apart before anything is rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from jobs.adapter_files.embedding_file import (
    EmbeddingFile,
    Vectors,
    called,
    default_token,
    embedding_of,
    read_embedding,
    token_trouble,
    tokens_trouble,
    word_trouble,
)
from jobs.model_files.safetensors_header import HeaderError, SafetensorsHeader, StoredTensor


def header(**tensors: tuple[int, ...]) -> SafetensorsHeader:
    return SafetensorsHeader({name: StoredTensor("F16", shape) for name, shape in tensors.items()}, {})


@pytest.mark.parametrize(
    ("stored", "encoders", "summary"),
    [
        (
            {"<cat-toy>": (768,)},
            [("<cat-toy>", 1, 768)],
            "1 vector of width 768, for Stable Diffusion 1",
        ),
        (
            {"emb_params": (4, 1024), "step": (1,)},
            [("emb_params", 4, 1024)],
            "4 vectors of width 1024, for Stable Diffusion 2",
        ),
        (
            {"clip_g": (2, 1280), "clip_l": (2, 768)},
            [("clip_l", 2, 768), ("clip_g", 2, 1280)],
            "2 vectors of width 768 and 1280, for Stable Diffusion XL",
        ),
        ({"clip_l": (3, 96)}, [("clip_l", 3, 96)], "3 vectors of width 96"),
    ],
)
def test_the_forms_of_diffusers_and_a1111_are_read(
    stored: dict[str, tuple[int, ...]], encoders: list[tuple[str, int, int]], summary: str
) -> None:
    found = embedding_of(header(**stored))
    assert found == EmbeddingFile(tuple(Vectors(*one) for one in encoders))
    assert found.summary == summary


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "holds no tensor: name another file"),
        ({"clip_g": (1, 1280)}, "has clip_g without clip_l: name a whole embedding"),
        ({"a": (1, 8), "b": (1, 8)}, r"is no textual inversion: it has 2 tensors \(a among them\)"),
        ({"latents": (4, 64, 64)}, r"is no textual inversion: its tensor latents is F16 \[4, 64, 64\]"),
        ({"a": (0, 768)}, r"is no textual inversion: its tensor a is F16 \[0, 768\]"),
        ({"a": (76, 768)}, "has 76 vectors in its tensor a, and a text has room for 75"),
    ],
)
def test_the_header_of_another_file_is_refused(stored: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        embedding_of(header(**stored))


def test_numbers_that_are_no_floats_are_refused() -> None:
    with pytest.raises(HeaderError, match=r"its tensor a is I64 \[1, 768\], not floats"):
        embedding_of(SafetensorsHeader({"a": StoredTensor("I64", (1, 768))}, {}))


def test_a_file_is_read_by_its_header_and_a_pickle_is_not_read(tmp_path: Path) -> None:
    import numpy as np

    file = tmp_path / "easynegative.safetensors"
    save_file({"emb_params": np.zeros((8, 768), "float32")}, file)
    assert read_embedding(file).widths == (768,)
    assert default_token(file) == "easynegative"
    for name in ("easynegative.pt", "easynegative.bin"):
        with pytest.raises(HeaderError, match=r"is a pickle, .*: convert it to \.safetensors"):
            read_embedding(tmp_path / name)
    with pytest.raises(HeaderError, match=r"must end in \.safetensors: name such a file"):
        read_embedding(tmp_path / "easynegative.txt")


def test_a_model_of_other_widths_does_not_take_it() -> None:
    xl = embedding_of(header(clip_l=(2, 768), clip_g=(2, 1280)))
    assert xl.trouble([768, 1280]) is None
    assert xl.trouble([768]) == (
        "has 2 vectors of width 768 and 1280, for Stable Diffusion XL, and the model's text encoder is 768 "
        "wide: name an embedding that was trained for this model"
    )
    trouble = embedding_of(header(a=(768,))).trouble([768, 1280])
    assert trouble is not None and "the model's text encoders are 768 and 1280 wide" in trouble


@pytest.mark.parametrize("token", ["<cat-toy>", "easynegative", "bad-hands-5", "v1.3_x", "жук"])
def test_these_are_tokens(token: str) -> None:
    assert token_trouble(token) is None


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "is empty: give it a token, such as <cat-toy>"),
        ("cat toy", "holds ' ', which a token may not"),
        ("cat(toy)", r"holds '\('"),
        ("a|b", r"holds '\|'"),
        ("a\ue001", "holds "),
        ("a:1", "holds ':'"),
    ],
)
def test_these_are_none(token: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert token_trouble(token) is None, token_trouble(token)


def test_tokens_that_cannot_be_told_apart_are_refused() -> None:
    assert tokens_trouble(["<cat>", "<dog>"]) is None
    assert tokens_trouble(["<cat>", "<Cat>"]) == (
        "two embeddings have the token <Cat>: give one of them another token"
    )
    assert tokens_trouble(["toy2", "toy"]) == (
        "the token toy2 holds the token toy: give one of them another token"
    )


def test_a_word_of_the_model_is_no_token() -> None:
    vocabulary = {"cat</w>", "toy"}
    assert word_trouble("<cat>", vocabulary) is None
    for word in ("cat", "Cat", "toy"):
        trouble = word_trouble(word, vocabulary)
        assert trouble is not None and f"such as <{word.lower()}>" in trouble


def test_only_the_tokens_count_that_a_text_holds() -> None:
    tokens = ["<cat>", "EasyNegative", "<dog>"]
    assert called(tokens, ["a <CAT> on a hill", "easynegative, blurry"]) == ["<cat>", "EasyNegative"]
