from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jobs.request import ImageRequest
from worker.instant import InstantRenderer
from worker.renderer import Stopped, batch_key

ONE = ImageRequest(prompt="a cat", seed=1, height=64, width=32, model="instant", revision="instant-1")


def never() -> bool:
    return False


def test_a_picture_follows_from_the_request_alone() -> None:
    renderer = InstantRenderer(rows=8, seconds=0.0)
    other = replace(ONE, seed=2)
    first, second = renderer.render([ONE, other], [None, None], never)
    assert first.pixels.shape == (64, 32, 3)
    assert first.pixels.dtype == np.uint8
    assert first.finite
    assert np.array_equal(first.pixels, renderer.render_alone(ONE, None, never).pixels)
    assert not np.array_equal(first.pixels, second.pixels)
    assert first.pixels.std() > 10


def test_it_batches_as_the_real_renderer_does() -> None:
    renderer = InstantRenderer(rows=8, seconds=0.0)
    unguided = replace(ONE, guidance_scale=1.0)
    assert (renderer.batch_size(ONE), renderer.batch_size(unguided)) == (4, 8)
    assert batch_key(ONE) == batch_key(replace(ONE, seed=5)) != batch_key(unguided)
    with pytest.raises(ValueError, match=r"1 \.\. 4"):
        renderer.render([ONE] * 5, [None] * 5, never)


def test_prompts_ask_for_every_misfortune() -> None:
    renderer = InstantRenderer(rows=8, seconds=0.0)
    black, nan = (replace(ONE, prompt=prompt) for prompt in ("!black", "!nan please"))
    pictures = renderer.render([black, nan], [None, None], never)
    assert [picture.finite for picture in pictures] == [True, False]
    assert pictures[0].pixels.std() == 0
    with pytest.raises(RuntimeError, match="!raise"):
        renderer.render([ONE, replace(ONE, prompt="!raise")], [None, None], never)


def test_a_micro_batch_takes_its_time_and_stops_when_told() -> None:
    began = time.monotonic()
    InstantRenderer(rows=8, seconds=0.1).render([ONE, ONE], [None, None], never)
    assert 0.1 <= time.monotonic() - began < 5

    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped):
        InstantRenderer(rows=8, seconds=3600).render([ONE], [None], stop)


def test_it_loads_no_torch() -> None:
    code = "import sys, worker.instant; print({'torch', 'diffusers', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
