"""Weights and long texts: the embeddings are compel's, or A1111's arithmetic on the encoder's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from compel import CompelForSD, CompelForSDXL

from jobs.errors import RenderError
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from worker.diffusion.own_embeds import Embeds
from worker.diffusion.painter import Painter
from worker.diffusion.pipeline_embeds import encoders_of, with_embeds
from worker.renderers.shapes_random import build

XL = "StableDiffusionXLPipeline"
CAT = ImageRequest(
    prompt="a cat", height=64, width=64, num_inference_steps=2, guidance_scale=4.0, scheduler="default",
    seed=1, model="tiny", revision="1",
)  # fmt: skip
LONG = ", ".join(f"a small red house number {n}" for n in range(20))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache
def pipeline(family: str) -> Any:
    return build() if family == "SD" else FAMILIES[family].build()


def embeds(family: str, **settings: Any) -> tuple[Embeds, Embeds | None]:
    return encoders_of(pipeline(family)).of(replace(CAT, **settings))


def encoded(text: str) -> torch.Tensor:
    """What Stable Diffusion's own call makes of a text: [L,D]."""
    pipe = pipeline("SD")
    with torch.no_grad():
        [tokens] = pipe.encode_prompt(text, torch.device("cpu"), 1, False)[0]
    return tokens


def test_a_text_without_weights_is_encoded_as_the_pipeline_s_own_call_does() -> None:
    prompt, negative = embeds("SD", syntax="a1111", negative_prompt="blurry")
    assert negative is not None and prompt.pooled is None
    assert torch.allclose(prompt.tokens, encoded("a cat"), atol=1e-6)
    assert torch.allclose(negative.tokens, encoded("blurry"), atol=1e-6)


def test_a1111_multiplies_the_tokens_and_restores_the_mean() -> None:
    pipe = build()
    modules = dict(pipe.text_encoder.named_modules())
    [last] = [name for name in modules if name.endswith("final_layer_norm")]
    torch.nn.init.constant_(modules[last].bias, 0.2)  # a mean, as trained encoders have one
    prompt, _ = encoders_of(pipe).of(replace(CAT, syntax="a1111", prompt="a (red:1.7) cat"))
    scaled = (encoded("a red cat") + 0.2).clone()
    before = scaled.mean()
    scaled[2] *= 1.7
    assert before.item() == pytest.approx(0.2, rel=1e-3)
    assert torch.allclose(prompt.tokens, scaled * (before / scaled.mean()), atol=1e-5)
    assert prompt.tokens.mean().item() == pytest.approx(before.item(), rel=1e-3)


def test_a_mean_that_is_rounding_alone_is_not_restored() -> None:
    scaled = encoded("a red cat")
    assert scaled.mean().abs() < 1e-6
    scaled[2] *= 1.7
    prompt, _negative = embeds("SD", syntax="a1111", prompt="a (red:1.7) cat")
    assert torch.allclose(prompt.tokens, scaled, atol=1e-5)


def test_brackets_are_no_tokens_and_escaped_ones_are() -> None:
    without, _ = embeds("SD", syntax="a1111", prompt="a red cat")
    one, _ = embeds("SD", syntax="a1111", prompt="a (red:1.0) cat")
    escaped, _ = embeds("SD", syntax="a1111", prompt=r"a \(red\) cat")
    assert torch.allclose(without.tokens, one.tokens, atol=1e-6)
    assert torch.allclose(escaped.tokens, encoded("a (red) cat"), atol=1e-6)


def test_break_gives_each_section_a_window_and_the_negative_prompt_empty_ones() -> None:
    prompt, negative = embeds("SD", syntax="a1111", prompt="a cat BREAK a dog", negative_prompt="blurry")
    assert negative is not None
    assert torch.allclose(prompt.tokens, torch.cat([encoded("a cat"), encoded("a dog")]), atol=1e-6)
    assert torch.allclose(negative.tokens, torch.cat([encoded("blurry"), encoded("")]), atol=1e-6)
    alone, none = embeds("SD", syntax="a1111", guidance_scale=1.0, negative_prompt="a BREAK b BREAK c")
    assert none is None and alone.tokens.shape == (77, 96)


def test_a_long_text_goes_on_in_another_window_after_a_comma() -> None:
    prompt, _negative = embeds("SD", prompt=LONG, long_prompts="chunk")
    assert len(prompt.tokens) % 77 == 0 and len(prompt.tokens) > 77
    ids = pipeline("SD").tokenizer(LONG, add_special_tokens=False).input_ids
    comma = pipeline("SD").tokenizer(",", add_special_tokens=False).input_ids[0]
    ends = max(place for place in range(75) if ids[place] == comma) + 1
    first = encoded(pipeline("SD").tokenizer.decode(ids[:ends]))
    assert torch.allclose(prompt.tokens[:77], first, atol=1e-6)
    cut, _negative = embeds("SD", prompt=LONG, long_prompts="cut", syntax="a1111")
    assert torch.allclose(cut.tokens, encoded(LONG), atol=1e-6)


def test_texts_of_too_many_windows_are_refused() -> None:
    with pytest.raises(RenderError, match="more than 32 chunks of 75 tokens"):
        embeds("SD", prompt="red " * 75 * 32 + "cat", long_prompts="chunk")


@pytest.mark.parametrize(
    "prompt",
    [
        "a (red)1.4 cat",
        "a (red)0.3 cat++",
        '("a cat", "a dog").blend(0.7, 0.3)',
        '("a cat", "a dog").and()',
        LONG,
    ],
)
def test_compel_s_syntax_is_encoded_as_compel_does(prompt: str) -> None:
    theirs = CompelForSD(pipeline("SD"))(prompt, negative_prompt="(blurry)1.2")
    ours, negative = embeds(
        "SD", syntax="compel", long_prompts="chunk", prompt=prompt, negative_prompt="(blurry)1.2"
    )
    assert negative is not None
    assert torch.allclose(ours.tokens, theirs.embeds[0], atol=1e-6)
    assert torch.allclose(negative.tokens, theirs.negative_embeds[0], atol=1e-6)


@pytest.mark.parametrize("prompt", ["a (red)1.4 cat", LONG])
def test_compel_s_two_encoders_of_sdxl_too(prompt: str) -> None:
    theirs = CompelForSDXL(pipeline(XL))(prompt, negative_prompt="blurry++")
    ours, negative = embeds(
        XL, syntax="compel", long_prompts="chunk", prompt=prompt, negative_prompt="blurry++"
    )
    assert negative is not None and ours.pooled is not None and negative.pooled is not None
    assert torch.allclose(ours.tokens, theirs.embeds[0], atol=1e-5)
    assert torch.allclose(ours.pooled, theirs.pooled_embeds[0], atol=1e-5)
    assert torch.allclose(negative.tokens, theirs.negative_embeds[0], atol=1e-5)
    assert torch.allclose(negative.pooled, theirs.negative_pooled_embeds[0], atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("(a, b).blend(1)", "compel does not take it"),
        ("a (cat:1.3)", "set syntax: a1111"),
        ("<lora:x:1>", "a LoRA"),
    ],
)
def test_what_compel_does_not_take_is_said(prompt: str, said: str) -> None:
    with pytest.raises(RenderError, match=said):
        embeds("SD", syntax="compel", prompt=prompt)


@pytest.mark.parametrize(
    "settings",
    [
        {"syntax": "compel", "prompt": "a (red)1.4 cat", "negative_prompt": "(blurry)0.5"},
        {"syntax": "a1111", "prompt": "a (red:1.4) cat BREAK a dog", "negative_prompt": "[ugly]"},
        {"long_prompts": "chunk", "prompt": LONG},
        {"syntax": "compel", "prompt": "a (red)1.4 cat", "guidance_scale": 1.0},
    ],
    ids=str,
)
def test_pictures_are_those_of_the_pipeline_called_with_these_embeddings(settings: dict[str, Any]) -> None:
    request = replace(CAT, **settings)
    pipe = pipeline(XL)
    pipe.set_progress_bar_config(disable=True)
    given = with_embeds(
        {"negative_prompt": request.negative_prompt}, pipe.config, encoders_of(pipe).of(request)
    )
    given = {name: value for name, value in given.items() if name != "negative_prompt"}
    with torch.no_grad():
        [expected] = pipe(
            **given, height=64, width=64, num_inference_steps=2, guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(1), output_type="np",
        ).images  # fmt: skip
        found = Painter(pipe).paint(request)
    assert np.abs(found.values - expected).max() <= 1e-5
    assert found.prompt_cut is None


def test_sdxl_without_weights_is_painted_as_plain_text_is() -> None:
    with torch.no_grad():
        painter = Painter(pipeline(XL))
        for settings in ({}, {"negative_prompt": "blurry"}):
            plain = painter.paint(replace(CAT, **settings))  # type: ignore[arg-type]
            read = painter.paint(replace(CAT, syntax="a1111", **settings))  # type: ignore[arg-type]
            assert np.abs(plain.values - read.values).max() <= 1e-5
        weighted = painter.paint(replace(CAT, syntax="a1111", prompt="a (cat:1.5)"))
    assert np.abs(plain.values - weighted.values).max() > 1e-4


def test_what_is_cut_is_told_in_every_syntax() -> None:
    told = encoders_of(pipeline(XL)).told
    assert told(CAT) is None
    for syntax in ("plain", "a1111", "compel"):
        cut = told(replace(CAT, prompt=LONG, syntax=syntax))
        assert cut is not None and cut.endswith("number 1 9" if "1 9" in cut else "number 19")
        assert told(replace(CAT, prompt=LONG, syntax=syntax, long_prompts="chunk")) is None
    both = told(replace(CAT, prompt=LONG, negative_prompt=LONG, syntax="a1111"))
    assert both is not None and "\nnegative prompt: " in both
    ends = told(replace(CAT, prompt=f"{LONG} BREAK {LONG}", syntax="a1111"))
    assert ends is not None and " … " in ends
