"""An image is charged its slots' share of the engine's time, whatever else is in the slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.request import ImageRequest
from tests.waiting import LONGEST
from worker.engine.engine import Engine
from worker.engine.renderer import Bucket, Pipeline
from worker.engine.request_queue import Order
from worker.engine.slot_time import SlotTime, SlotUse
from worker.renderers.instant import InstantRenderer

PIPELINE = Pipeline("instant", "1", "auto")
BUCKET = Bucket(PIPELINE, 64, 64, slots=16)


def order(seed: int = 0, deliver: Callable[[Any], None] = lambda outcome: None, **settings: Any) -> Order:
    request = ImageRequest(
        prompt="", seed=seed, height=64, width=64, num_inference_steps=10, model="instant", revision="1",
        **settings,
    )  # fmt: skip
    return Order(BUCKET, request, None, deliver)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_guided_image_alone_is_charged_two_of_the_slots() -> None:
    clock, one = Clock(), order()
    times = SlotTime(InstantRenderer(0.0), BUCKET, clock)
    for _ in range(10):
        clock.now += 4.0
        times.share_out([one])
    assert times.use(one).seconds == pytest.approx(40.0 * 2 / 16)


def test_free_slots_are_charged_to_nobody_unless_they_are_left_out_of_the_forward() -> None:
    clock, one, other = Clock(), order(), order(guidance_scale=1.0)
    times = SlotTime(InstantRenderer(0.0), Bucket(PIPELINE, 64, 64, slots=16, mode="fast"), clock)
    clock.now += 6.0
    times.share_out([one, other])
    assert (times.use(one).seconds, times.use(other).seconds) == (4.0, 2.0)


def test_a_renderer_that_cannot_batch_has_no_free_slots_to_charge_for() -> None:
    clock, one, other = Clock(), order(), order(guidance_scale=1.0)
    renderer = InstantRenderer(0.0)
    renderer.batching = "alone"
    times = SlotTime(renderer, BUCKET, clock)
    for image in (one, other):
        clock.now += 6.0
        times.share_out([image])
        assert times.use(image).seconds == pytest.approx(6.0)


def test_images_that_come_and_go_share_all_the_time_that_passes_with_full_slots() -> None:
    clock = Clock()
    times = SlotTime(InstantRenderer(0.0), BUCKET, clock)
    inside, charged = [order(seed) for seed in range(8)], 0.0
    for step in range(20):
        clock.now += 1.0 + step % 3
        times.share_out(inside)
        charged += times.use(inside.pop(0)).seconds
        inside.append(order(100 + step))
    assert charged + sum(times.use(one).seconds for one in inside[:-1]) == pytest.approx(clock.now - 100.0)


def test_pictures_that_wait_to_be_decoded_do_not_make_time_out_of_nothing() -> None:
    clock, inside = Clock(), [order(seed) for seed in range(12)]
    times = SlotTime(InstantRenderer(0.0), BUCKET, clock)
    clock.now += 6.0
    times.share_out(inside)
    assert sum(times.use(one).seconds for one in inside) == pytest.approx(6.0)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(lambda pipeline: InstantRenderer(0.1))
    engine.start()
    yield engine
    engine.close()


def rendered(engine: Engine, orders: int, **settings: Any) -> float:
    """Renders so many images; returns the seconds it took."""
    done = threading.Semaphore(0)
    began = time.monotonic()
    engine.submit([order(seed, lambda outcome: done.release(), **settings) for seed in range(orders)])
    for _ in range(orders):
        assert done.acquire(timeout=LONGEST)
    return time.monotonic() - began


def test_an_engine_shows_once_what_its_pictures_took(engine: Engine) -> None:
    taken = rendered(engine, 24)
    work = engine.take_slot_use(BUCKET)
    assert work.row_evaluations == 24 * 20
    assert 0.3 <= work.seconds <= taken
    assert engine.take_slot_use(BUCKET) == SlotUse(0, 0.0)


def test_a_short_job_shows_the_same_rate_as_a_long_one(engine: Engine) -> None:
    rendered(engine, 2)
    alone = engine.take_slot_use(BUCKET)
    assert alone.row_evaluations == 40
    assert 0.025 <= alone.seconds < 0.1


def test_questions_answered_between_two_forwards_count_for_nothing(engine: Engine) -> None:
    asked, done = threading.Event(), threading.Semaphore(0)

    def deliver(outcome: Any) -> None:
        if not asked.is_set():
            asked.set()
            engine.ask(PIPELINE, lambda renderer: time.sleep(0.5))
        done.release()

    began = time.monotonic()
    engine.submit([order(seed, deliver) for seed in range(32)])
    for _ in range(32):
        assert done.acquire(timeout=LONGEST)
    work = engine.take_slot_use(BUCKET)
    assert work.row_evaluations == 32 * 20
    assert time.monotonic() - began >= work.seconds + 0.5
    assert work.seconds >= 0.4
