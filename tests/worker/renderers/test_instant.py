from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from worker.engine.renderer import Bucket, Picture, Pipeline, Stopped
from worker.renderers.instant import InstantRenderer

ONE = ImageRequest(prompt="a cat", seed=1, height=64, width=32, model="instant", revision="instant-1")
BUCKET = Bucket(Pipeline("instant", "instant-1", "auto"), 64, 32, slots=8)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    request: ImageRequest
    inputs: Inputs = NO_INPUTS


class Source:
    """Gives `together` images at a time, and keeps how many slots were free."""

    def __init__(self, *requests: ImageRequest, together: int = 4) -> None:
        self.left = [Wanted(request) for request in requests]
        self.together = together
        self.free_slots: list[int] = []

    def take(self, free_slots: int) -> list[Wanted]:
        self.free_slots.append(free_slots)
        taken, self.left = self.left[: self.together], self.left[self.together :]
        return taken

    def upcoming(self, count: int) -> list[Wanted]:
        return self.left[:count]


def paint(*requests: ImageRequest) -> list[Picture]:
    pictures: list[Picture] = []
    for outcomes in InstantRenderer(seconds=0.0).render(BUCKET, Source(*requests), bool):
        for _asked, picture in outcomes:
            assert isinstance(picture, Picture)
            pictures.append(picture)
    return pictures


def test_a_picture_follows_from_the_request_alone() -> None:
    first, second = paint(ONE, replace(ONE, seed=2))
    assert first.pixels.shape == (64, 32, 3)
    assert first.pixels.dtype == np.uint8
    assert first.finite
    alone = InstantRenderer(seconds=0.0).render_alone(ONE, NO_INPUTS, bool)
    assert np.array_equal(first.pixels, alone.pixels)
    assert not np.array_equal(first.pixels, second.pixels)
    assert first.pixels.std() > 10


def test_it_paints_all_that_the_source_gives_a_forward_at_a_time() -> None:
    renderer = InstantRenderer(seconds=0.0)
    source = Source(*(replace(ONE, seed=seed) for seed in range(9)))
    steps = [
        [asked.request.seed for asked, _picture in step] for step in renderer.render(BUCKET, source, bool)
    ]
    assert steps == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert set(source.free_slots) == {8}
    assert (renderer.slots(ONE), renderer.slots(replace(ONE, guidance_scale=1.0))) == (2, 1)
    assert (renderer.forwards(ONE), renderer.forwards(replace(ONE, scheduler="Heun"))) == (50, 99)
    assert renderer.measure_slots(64, 64) == renderer.measure_slots(512, 512) == 16


@pytest.mark.parametrize("prompt", ["!die", "!raise", "!nan", "!black"])
def test_no_prompt_is_a_command(prompt: str) -> None:
    [picture] = paint(replace(ONE, prompt=prompt))
    assert picture.finite
    assert picture.pixels.std() > 10


def test_a_forward_takes_its_time_and_stops_when_told() -> None:
    began = time.monotonic()
    list(InstantRenderer(seconds=0.1).render(BUCKET, Source(ONE, ONE), bool))
    assert 0.1 <= time.monotonic() - began < 5

    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped):
        list(InstantRenderer(seconds=3600).render(BUCKET, Source(ONE), stop))


def test_it_loads_no_torch() -> None:
    code = "import sys, worker.renderers.instant; print({'torch', 'diffusers', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
