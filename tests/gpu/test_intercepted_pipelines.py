"""Intercepted pipelines on an NVIDIA GPU: bytes, compiled forwards, and what a step's host waits for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import MIX, Wanted, paint, render
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Picture
from worker.renderers.pipeline_renderer import PipelineRenderer

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")
OWN_SAMPLER = [replace(one, request=replace(one.request, scheduler="default")) for one in MIX]
FAMILIES_HERE = [("StableDiffusionXLPipeline", MIX), ("FluxPipeline", OWN_SAMPLER)]


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield
    torch._dynamo.reset()


def new_renderer(family: str, precision: str = "bf16", **options: bool) -> PipelineRenderer:
    resolved = resolve_precision(precision, GPU)
    pipeline: Any = FAMILIES[family].build().to(GPU, resolved.weights)
    return PipelineRenderer(pipeline, precision=resolved, device=GPU, model="tiny", revision="1", **options)


def mean_difference(one: PipelineRenderer, other: PipelineRenderer, images: list[Wanted]) -> float:
    ours, theirs = render(one, images), render(other, images)
    pairs = [(ours[seed], theirs[seed]) for seed in ours]
    assert all(isinstance(picture, Picture) and picture.finite for pair in pairs for picture in pair)
    return max(float(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).mean()) for a, b in pairs)  # type: ignore[union-attr]


@pytest.mark.parametrize(("family", "images"), FAMILIES_HERE)
@pytest.mark.parametrize("options", [{}, {"compiled": True}, {"channels_last": True}], ids=str)
def test_bytes_follow_from_the_request_and_pictures_stay_what_they_are(
    family: str, images: list[Wanted], options: dict[str, bool]
) -> None:
    renderer = new_renderer(family, **options)
    assert renderer.batching == "exact"
    together = paint(renderer, images)
    assert paint(renderer, images[::-1]) == together
    assert {seed: pixels for one in images for seed, pixels in paint(renderer, [one]).items()} == together
    assert mean_difference(renderer, new_renderer(family), images) < 4


@pytest.mark.parametrize(("family", "images"), FAMILIES_HERE)
def test_a_compiled_pipeline_loaded_again_paints_the_same_bytes(family: str, images: list[Wanted]) -> None:
    first = paint(new_renderer(family, compiled=True), images)
    torch._dynamo.reset()
    assert paint(new_renderer(family, compiled=True), images) == first


def test_the_steps_of_an_image_do_not_wait_for_the_gpu() -> None:
    """As torch itself counts: more steps, and no more waits."""
    renderer = new_renderer("StableDiffusionXLPipeline")

    def waits(steps: int) -> int:
        request = replace(MIX[0].request, scheduler="DDIM", num_inference_steps=steps)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                paint(renderer, [Wanted(request)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in found)

    waits(2)
    assert 0 < waits(3) == waits(9)
