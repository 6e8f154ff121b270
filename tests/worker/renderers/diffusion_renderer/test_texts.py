"""Texts of any length and with weights."""

from __future__ import annotations

import pytest

from jobs.errors import RenderError
from jobs.inputs.inputs import NO_INPUTS
from tests.worker.renderers.diffusion_renderer.wanted import BUCKET, MIX, paint, render, wanted
from worker.diffusion import denoiser_by_length
from worker.engine.renderer import Picture
from worker.renderers.diffusion_renderer import DiffusionRenderer

LONG = ", ".join(f"a small red house number {n}" for n in range(20))
READ = [
    wanted(20, prompt="a (red:1.4) star", syntax="a1111"),
    wanted(21, prompt="a star BREAK a moon", syntax="a1111", num_inference_steps=5),
    wanted(22, prompt=LONG, long_prompts="chunk", guidance_scale=1.0),
    wanted(23, prompt="(star)1.3 moon--", syntax="compel", negative_prompt="(ugly)1.2"),
    wanted(24, prompt="a BREAK b BREAK c", syntax="a1111", guidance_scale=1.0, num_inference_steps=1),
    wanted(25, prompt="a star", negative_prompt=LONG, long_prompts="chunk", scheduler="UniPC"),
]


def test_texts_of_any_length_keep_that_promise(renderer: DiffusionRenderer, alone: dict[int, bytes]) -> None:
    mine = {seed: picture for one in READ for seed, picture in paint(renderer, [one]).items()}
    assert len(set(mine.values())) == len(READ)
    mixed = [one for pair in zip(READ, MIX, strict=False) for one in pair] + MIX[len(READ) :]
    for order in (mixed, mixed[::-1]):
        assert paint(renderer, order, bucket=BUCKET) == mine | alone
    assert paint(renderer, *([one] for one in mixed)) == mine | alone


def test_a_rare_length_has_its_turn_before_the_source_ends(
    renderer: DiffusionRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser_by_length, "_PATIENCE", 5)
    many = [wanted(100 + number, num_inference_steps=2 + number % 3) for number in range(60)]
    order = list(paint(renderer, [*many[:10], READ[1], *many[10:]]))
    assert order.index(READ[1].request.seed) < 50


def test_an_image_alone_in_fp32_may_have_weights_too(renderer: DiffusionRenderer) -> None:
    for one in READ:
        assert renderer.render_alone(one.request, NO_INPUTS, bool).finite


def test_a_text_that_cannot_be_read_fails_its_image_alone(renderer: DiffusionRenderer) -> None:
    found = render(renderer, [MIX[0], wanted(30, prompt="<lora:x:1>", syntax="a1111"), READ[1]])
    assert isinstance(found[30], RenderError) and "names a LoRA" in str(found[30])
    assert isinstance(found[0], Picture) and isinstance(found[21], Picture)


def test_what_is_cut_of_a_text_comes_with_its_picture(renderer: DiffusionRenderer) -> None:
    cut = [
        wanted(40),
        wanted(41, prompt=LONG),
        wanted(42, negative_prompt=LONG),
        wanted(43, negative_prompt=LONG, guidance_scale=1.0),
        wanted(44, prompt=LONG, syntax="a1111"),
        wanted(45, prompt=LONG, syntax="compel"),
        wanted(46, prompt=LONG, long_prompts="chunk"),
    ]
    found = {seed: picture.prompt_cut for seed, picture in render(renderer, cut).items()}  # type: ignore[union-attr]
    told = found[41]
    assert told is not None and LONG.replace(" ", "").endswith(told.replace(" ", ""))
    assert found == {
        40: None, 41: told, 42: f"negative prompt: {told}", 43: None, 44: told, 45: told, 46: None,
    }  # fmt: skip
