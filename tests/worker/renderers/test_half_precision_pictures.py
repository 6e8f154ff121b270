"""Images with pictures in bf16: painted, each with the same bytes alone and among others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker.renderers.intercepted import Wanted, paint, render
from tests.worker.renderers.pictured import BUILT, INPUTS, MASKED, by_call, pictured
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Picture, Pipeline
from worker.renderers.pipeline_renderer import PipelineRenderer

CPU = torch.device("cpu")
BF16 = resolve_precision("bf16", CPU)
BUCKET = Bucket(Pipeline("tiny", "1", "bf16"), 64, 64, slots=8)
TASKS = {
    "StableDiffusionPipeline": ("image+mask_image",),
    "FluxPipeline": ("image",),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.getbasetemp()
    torch.set_num_threads(before)


@cache
def in_bf16(family: str) -> PipelineRenderer:
    pipeline = BUILT[family].build()
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            torch.nn.Module.to(module, BF16.weights)
    return PipelineRenderer(pipeline, precision=BF16, device=CPU, model="tiny", revision=family)


@pytest.mark.parametrize("family", TASKS)
def test_every_task_is_painted_in_bf16_with_the_same_bytes_alone_and_among_others(family: str) -> None:
    tasks = TASKS[family]
    renderer = in_bf16(family)
    assert (renderer.precision, renderer.batching) == ("bf16", "exact")
    asked = [
        Wanted(pictured(family, task, 2 * number + odd), INPUTS)
        for number, task in enumerate(tasks)
        for odd in (0, 1)
    ]
    together = paint(renderer, asked, BUCKET)
    assert len(set(together.values())) == len(asked)
    for one in asked:
        assert paint(renderer, [one], BUCKET)[one.request.seed] == together[one.request.seed]


def test_in_bf16_a_mask_keeps_the_original_to_the_bit_also_in_a_picture_by_itself() -> None:
    renderer = in_bf16("StableDiffusionPipeline")
    request = pictured("StableDiffusionPipeline", "image+mask_image", 3)
    original = np.asarray(by_call(request, "image"))
    outside = np.ones((64, 64), bool)
    outside[MASKED] = False
    alone = renderer.render_alone(request, INPUTS, lambda: False)
    among = render(renderer, [Wanted(request, INPUTS)], BUCKET)[3]
    assert isinstance(among, Picture)
    for picture in (alone, among):
        assert np.array_equal(picture.pixels[outside], original[outside])
        assert not np.array_equal(picture.pixels[MASKED], original[MASKED])
    # By itself in fp32. It is nearly the same without guidance, which multiplies what bf16 rounds.
    assert np.abs(alone.pixels.astype(int) - among.pixels).max() < 16
