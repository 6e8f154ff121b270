"""Prompts are encoded in full batches, each once, some before they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from worker.diffusion import text_embeds
from worker.diffusion.precision import resolve_precision
from worker.diffusion.text_embeds import TextEmbeds
from worker.renderers.shapes_random import build

CPU = torch.device("cpu")
FP32, BF16 = resolve_precision("fp32", CPU), resolve_precision("bf16", CPU)


@pytest.fixture(scope="module")
def pipe() -> Iterator[object]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build()
    torch.set_num_threads(before)


@pytest.fixture
def texts(pipe) -> TextEmbeds:  # type: ignore[no-untyped-def]
    return TextEmbeds(pipe.tokenizer, pipe.text_encoder)


@pytest.fixture
def encoded(pipe) -> Iterator[list[list[str]]]:  # type: ignore[no-untyped-def]
    """The texts of each call of the encoder."""
    calls: list[list[str]] = []
    hook = pipe.text_encoder.register_forward_pre_hook(
        lambda module, args: calls.append(pipe.tokenizer.batch_decode(args[0], skip_special_tokens=True))
    )
    yield calls
    hook.remove()


def test_equal_texts_are_encoded_once_and_remembered(texts: TextEmbeds, encoded: list[list[str]]) -> None:
    first = texts.get(["a cat", "a dog", "a cat"], FP32, CPU)
    assert encoded == [["a cat", "a dog", "a dog"]]
    assert first.shape == (3, 77, 96)
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    again = texts.get(["a dog", "a cat", "a cat"], FP32, CPU)
    assert torch.equal(again, first[[1, 0, 0]])
    assert len(encoded) == 1
    texts.get(["a dog", "a fox", "a cat"], FP32, CPU)
    assert encoded[1:] == [["a fox"] * 3]


def test_batches_are_always_full_and_a_text_follows_from_itself_alone(
    texts: TextEmbeds, pipe, encoded: list[list[str]]
) -> None:  # type: ignore[no-untyped-def]
    words = [f"{n} cat" for n in ("one", "two", "three", "large", "small", "red")]
    many = texts.get(words, FP32, CPU, batch=4)
    assert encoded == [words[:4], [*words[4:], words[5], words[5]]]
    for word, embeds in zip(words, many, strict=True):
        other = TextEmbeds(pipe.tokenizer, pipe.text_encoder)
        assert torch.equal(other.get([word], FP32, CPU, batch=4)[0], embeds)
    assert {len(batch) for batch in encoded} == {4}


def test_a_batch_is_filled_with_texts_asked_for_soon(texts: TextEmbeds, encoded: list[list[str]]) -> None:
    texts.get(["a cat"], FP32, CPU, batch=4)
    ahead = ["a fox", "a dog", "a cat", "a fox", "a sea", "a sky", "a house"]
    texts.get(["a fox", "a star"], FP32, CPU, batch=4, ahead=ahead)
    assert encoded[1:] == [["a fox", "a star", "a dog", "a sea"]]
    texts.get(["a dog", "a sea"], FP32, CPU, batch=4, ahead=["a sky"])
    assert len(encoded) == 2, "nothing is lacking, so nothing is encoded ahead"


def test_what_a_text_becomes_depends_on_batch_and_precision_and_so_does_what_is_kept(
    texts: TextEmbeds, encoded: list[list[str]]
) -> None:
    kinds = [(FP32, 1), (FP32, 4), (BF16, 4)]
    for precision, batch in kinds * 2:
        embeds = texts.get(["a cat"], precision, CPU, batch=batch)
        assert embeds.dtype == precision.weights
    assert [len(batch) for batch in encoded] == [1, 4, 4]


def test_the_last_texts_are_kept_and_no_more(
    texts: TextEmbeds, encoded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_embeds, "KEPT", 3)
    for word in ("a cat", "a dog", "a fox", "a cat", "a sea"):
        texts.get([word], FP32, CPU)
    del encoded[:]
    texts.get(["a cat"], FP32, CPU)
    assert encoded == [], "it was asked for later than the dog"
    texts.get(["a dog"], FP32, CPU)
    assert encoded == [["a dog"]]
    words = ["one", "two", "three", "large", "small"]
    five = texts.get(words, FP32, CPU)
    assert five.shape == (5, 77, 96)
    del encoded[:]
    texts.get(words, FP32, CPU)
    assert encoded == [["one", "two", "two", "two", "two"]]


def test_four_batches_are_kept_so_that_what_is_encoded_ahead_is_there_when_asked_for(
    texts: TextEmbeds, encoded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_embeds, "KEPT", 3)
    ahead = ["one", "two", "three", "large"]
    texts.get(["small"], FP32, CPU, batch=5, ahead=ahead)
    texts.get(["a cat", "a dog", "a fox", "a sea", "a sky"], FP32, CPU, batch=5)
    texts.get(ahead, FP32, CPU, batch=5)
    assert len(encoded) == 2


@pytest.fixture
def no_bad(pipe, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The encoder breaks on the text 'BAD'."""
    bad = pipe.tokenizer(["BAD"]).input_ids[0][1]

    def refuse(module: object, args: tuple[torch.Tensor]) -> None:
        if (args[0][:, 1] == bad).any():
            raise ValueError("BAD")

    hook = pipe.text_encoder.register_forward_pre_hook(refuse)
    yield
    hook.remove()


@pytest.mark.usefixtures("no_bad")
def test_a_text_that_breaks_the_encoder_harms_nobody_while_it_is_only_ahead(
    pipe, encoded: list[list[str]]
) -> None:  # type: ignore[no-untyped-def]
    words = ["one cat", "two cat", "three cat"]
    expected = TextEmbeds(pipe.tokenizer, pipe.text_encoder).get(words, FP32, CPU, batch=2)
    texts = TextEmbeds(pipe.tokenizer, pipe.text_encoder)
    del encoded[:]
    assert torch.equal(texts.get(words, FP32, CPU, batch=2, ahead=["BAD", "a dog"]), expected)
    assert {len(batch) for batch in encoded} == {2}
    with pytest.raises(ValueError, match="BAD"):
        texts.get(["BAD"], FP32, CPU, batch=2, ahead=["a dog"])


def test_a_prompt_too_long_is_cut_with_one_warning_that_names_what_is_lost(
    texts: TextEmbeds, caplog: pytest.LogCaptureFixture
) -> None:
    long = "a red circle " * 25 + "and a green star"
    with caplog.at_level(logging.WARNING):
        texts.get([long, "a cat", long], FP32, CPU)
        texts.get([long, "a cat", long], FP32, CPU)
    [warning] = [
        record.getMessage() for record in caplog.records if record.name == "worker.diffusion.text_embeds"
    ]
    assert "77 tokens" in warning
    assert warning.endswith("left out: 'and a green star'")
