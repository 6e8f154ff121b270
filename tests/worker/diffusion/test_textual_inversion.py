"""Textual inversions: what diffusers paints with them, in each syntax, and nothing of them is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.adapters import TextualInversion
from jobs.errors import InputError, RenderError
from jobs.request import ImageRequest
from tests.embedding_files import FolderInputs, embedding, vectors
from tests.tiny.families import FAMILIES
from worker.diffusion.build_scheduler import scheduler_like
from worker.diffusion.painter import Painter
from worker.diffusion.textual_inversion import TextualInversions
from worker.renderers.shapes_random import build

XL = "StableDiffusionXLPipeline"
SD = "StableDiffusionPipeline"
REQUEST = ImageRequest(
    prompt="a photo of a <cat-toy> on <moon>", negative_prompt="blurry <bad>", height=32, width=32,
    num_inference_steps=2, guidance_scale=4.0, scheduler="DDIM", seed=1, model="tiny", revision="1",
)  # fmt: skip
COUNTS = {"<cat-toy>": 3, "<moon>": 1, "<bad>": 2}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(family: str) -> Any:
    pipeline = build() if family == SD else FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def encoders(pipeline: Any) -> list[tuple[str, Any, Any]]:
    """The name of each encoder's tensor in a file, its tokenizer and itself."""
    if not hasattr(pipeline, "text_encoder_2"):
        return [("emb_params", pipeline.tokenizer, pipeline.text_encoder)]
    return [
        ("clip_l", pipeline.tokenizer, pipeline.text_encoder),
        ("clip_g", pipeline.tokenizer_2, pipeline.text_encoder_2),
    ]


def tensors(pipeline: Any, count: int, seed: int) -> dict[str, torch.Tensor]:
    return {
        name: vectors(count, encoder.config.hidden_size, seed + place)
        for place, (name, _tokenizer, encoder) in enumerate(encoders(pipeline))
    }


class Given:
    """A pipeline of its own for each family, and the embeddings that fit it."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.pipeline = family, built(family)
        self.painter = Painter(self.pipeline)
        self.inputs = FolderInputs(folder)
        self.tensors = {
            token: tensors(self.pipeline, count, 10 * place)
            for place, (token, count) in enumerate(COUNTS.items())
        }
        self.listed = [self.one(token, f"{place}.safetensors") for place, token in enumerate(COUNTS)]
        self.words = TextualInversions(self.pipeline, self.painter.forget_texts)

    def one(self, token: str, name: str) -> TextualInversion:
        sha256 = self.inputs.add(embedding(**self.tensors[token]))
        return TextualInversion(name, token, sha256)

    def paint(self, request: ImageRequest = REQUEST) -> np.ndarray:
        with torch.no_grad():
            return self.painter.paint(request).values

    def theirs(self, request: ImageRequest = REQUEST) -> np.ndarray:
        """What a person gets who loads the embeddings into diffusers' pipeline and calls it."""
        pipeline = built(self.family)
        pipeline.scheduler = scheduler_like(request.scheduler, pipeline.scheduler)
        for token, held in self.tensors.items():
            for name, tokenizer, encoder in encoders(pipeline):
                pipeline.load_textual_inversion(
                    {token: held[name]}, token=token, tokenizer=tokenizer, text_encoder=encoder
                )
        generator = torch.Generator().manual_seed(request.seed)
        [values] = pipeline(
            prompt=request.prompt, negative_prompt=request.negative_prompt, height=32, width=32,
            num_inference_steps=2, guidance_scale=4.0, generator=generator, output_type="np",
        ).images  # fmt: skip
        return np.asarray(values)


@pytest.fixture(scope="module", params=[SD, XL])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(request.param, tmp_path_factory.mktemp("embeddings"))


def test_a_picture_is_the_one_that_diffusers_paints_with_the_embeddings(given: Given) -> None:
    given.words.put_on(given.listed, given.inputs)
    ours = given.paint()
    assert np.array_equal(ours, given.theirs())
    given.words.put_on([], given.inputs)
    assert np.abs(ours - given.paint()).max() > 0.001


def test_the_model_s_own_pictures_keep_their_bytes(given: Given) -> None:
    plain = replace(REQUEST, prompt="a photo of a cat", negative_prompt="blurry")
    before, encoder = given.paint(plain), given.pipeline.text_encoder
    embedding, weights = encoder.get_input_embeddings(), encoder.get_input_embeddings().weight.clone()
    tokenizer, size = given.pipeline.tokenizer, len(given.pipeline.tokenizer)
    kind, vocabulary = type(tokenizer), tokenizer.get_vocab()
    for listed in (given.listed, given.listed[:1], given.listed[1:]):
        given.words.put_on(listed, given.inputs)
        with_words = given.paint()
        given.words.put_on([], given.inputs)
        assert not np.array_equal(with_words, before)
        assert np.array_equal(given.paint(plain), before)
    assert given.pipeline.tokenizer is tokenizer and len(tokenizer) == size
    assert type(tokenizer) is kind and tokenizer.get_vocab() == vocabulary
    assert encoder.get_input_embeddings() is embedding and torch.equal(embedding.weight, weights)
    assert encoder.config.vocab_size == len(weights)


def test_a_picture_has_the_same_bytes_whatever_was_known_before_it(given: Given) -> None:
    given.words.put_on(given.listed, given.inputs)
    first = given.paint()
    given.words.put_on(given.listed[:2], given.inputs)
    other = given.paint()
    given.words.put_on(given.listed, given.inputs)
    assert np.array_equal(given.paint(), first)
    assert not np.array_equal(other, first)
    again = given.one("<cat-toy>", "0.safetensors")
    given.words.put_on([replace(again, token="<other>")], given.inputs)
    renamed = given.paint(replace(REQUEST, prompt="a <other>", negative_prompt=""))
    given.words.put_on([again], given.inputs)
    assert np.array_equal(given.paint(replace(REQUEST, prompt="a <cat-toy>", negative_prompt="")), renamed)


def test_an_embedding_is_found_in_upper_case_and_next_to_other_letters(given: Given) -> None:
    given.words.put_on(given.listed, given.inputs)
    upper = replace(REQUEST, prompt="a photo of a <Cat-Toy> on <MOON>")
    assert np.array_equal(given.paint(upper), given.paint())
    close = replace(REQUEST, prompt="a photo of a<cat-toy>on<moon>")
    assert np.array_equal(given.paint(close), given.paint())


@pytest.mark.parametrize(
    ("syntax", "prompt"),
    [("a1111", "a photo of a (<cat-toy>:1.0) on <moon>"), ("compel", "a photo of a <cat-toy> on <moon>")],
)
def test_syntaxes_encode_embeddings_as_plain_texts_do(given: Given, syntax: str, prompt: str) -> None:
    given.words.put_on(given.listed, given.inputs)
    ours = given.paint(replace(REQUEST, prompt=prompt, syntax=syntax))
    assert np.abs(ours - given.paint()).max() <= 1e-5


@pytest.mark.parametrize(
    ("syntax", "prompt"), [("a1111", "a (<cat-toy>:1.4)"), ("compel", "a (<cat-toy>)1.4")]
)
def test_a_weight_is_that_of_all_vectors_of_an_embedding(given: Given, syntax: str, prompt: str) -> None:
    """Three words, each with an embedding of one vector, are the same text."""
    given.words.put_on(given.listed[:1], given.inputs)
    request = replace(REQUEST, syntax=syntax, negative_prompt="")
    weighted = given.paint(replace(request, prompt=prompt))
    plain = given.paint(replace(request, prompt="a <cat-toy>"))
    singles = []
    for place in range(COUNTS["<cat-toy>"]):
        held = {name: rows[place : place + 1] for name, rows in given.tensors["<cat-toy>"].items()}
        name = f"single{place}.safetensors"
        singles.append(TextualInversion(name, f"<part{place}>", given.inputs.add(embedding(**held))))
    given.words.put_on(singles, given.inputs)
    apart = given.paint(replace(request, prompt=prompt.replace("<cat-toy>", "<part0> <part1> <part2>")))
    assert np.abs(weighted - apart).max() <= 1e-5
    assert np.abs(weighted - plain).max() > 1e-4


def test_what_is_cut_off_is_told_with_the_token_once(given: Given) -> None:
    given.words.put_on(given.listed, given.inputs)
    words = " ".join(["a"] * 74)
    for syntax in ("plain", "a1111", "compel"):
        request = replace(REQUEST, prompt=f"{words} <cat-toy> dog", negative_prompt="", syntax=syntax)
        with torch.no_grad():
            cut = given.painter.paint(request).prompt_cut
        assert cut is not None and "".join(cut.replace("</w>", "").split()) == "<cat-toy>dog"
        with torch.no_grad():
            assert given.painter.paint(replace(request, prompt=f"{words[4:]} <moon> dog")).prompt_cut is None


def test_the_vectors_of_an_embedding_stay_in_one_window(given: Given) -> None:
    given.words.put_on(given.listed, given.inputs)
    words = " ".join(["a"] * 74)
    long = replace(REQUEST, negative_prompt="", syntax="a1111", long_prompts="chunk")
    assert np.array_equal(
        given.paint(replace(long, prompt=f"{words} <cat-toy> dog")),
        given.paint(replace(long, prompt=f"{words} BREAK <cat-toy> dog")),
    )


@pytest.mark.parametrize(
    ("token", "contents", "message"),
    [
        (
            "cat",
            None,
            "token cat: is a word that the model knows: give it a token that is none, such as <cat>",
        ),
        (
            "<c>",
            embedding(emb_params=vectors(2, 7)),
            r"x: has 2 vectors of width 7, and the model's text enc",
        ),
        ("<c>", embedding(a=vectors(2, 7), b=vectors(2, 7)), r"x: is no textual inversion: it has 2 tensors"),
        ("<c>", b"PK", r"x: is no safetensors file, or is damaged: fetch it again"),
    ],
)
def test_a_file_or_a_token_that_does_not_fit_is_refused_and_nothing_stays(
    given: Given, token: str, contents: bytes | None, message: str
) -> None:
    given.words.put_on([], given.inputs)
    before, tokenizer = given.paint(), given.pipeline.tokenizer
    held = embedding(**given.tensors["<moon>"]) if contents is None else contents
    one = TextualInversion("x", token, given.inputs.add(held))
    given.words.put_on(given.listed, given.inputs)
    with pytest.raises(RenderError, match=f"^textual_inversions: {message}"):
        given.words.put_on([one], given.inputs)
    assert "<moon>" not in tokenizer.get_vocab() and given.words.on == ()
    assert np.array_equal(given.paint(), before)


def test_tokens_that_hold_one_another_and_files_that_are_missing_are_refused(given: Given) -> None:
    moon = given.listed[1]
    with pytest.raises(RenderError, match="the token <moon><cat> holds the token <moon>: give one of them"):
        given.words.put_on([moon, replace(moon, token="<moon><cat>")], given.inputs)
    with pytest.raises(InputError, match="is missing"):
        given.words.put_on([replace(moon, sha256="0" * 64)], given.inputs)
    broken = {name: tensor / 0 for name, tensor in given.tensors["<moon>"].items()}
    inf = replace(moon, sha256=given.inputs.add(embedding(**broken)))
    with pytest.raises(RenderError, match=r"1\.safetensors: holds numbers that are not finite"):
        given.words.put_on([inf], given.inputs)
    assert given.words.on == ()
