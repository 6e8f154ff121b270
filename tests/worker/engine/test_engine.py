"""The engine keeps slots full, isolates what is bad in them, and hands each picture to whom it belongs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import ImagemillError, LeaseLost, ModelError, RenderError, SettingsError
from jobs.request import ImageRequest
from worker.diffusion.diffusion_renderer import DiffusionRenderer
from worker.diffusion.pipelines import load_model
from worker.engine import request_queue as orders_module
from worker.engine.engine import Engine
from worker.engine.renderer import (
    Bucket,
    OutOfMemory,
    Picture,
    Pipeline,
    Renderer,
    Source,
    Stopped,
    slots_alone,
)
from worker.engine.request_queue import Finished, Order, Outcome
from worker.image_diffusion_model import ImageDiffusionModel

CATS, DOGS = Pipeline("cats", "1", "auto"), Pipeline("dogs", "1", "auto")
BUCKET = Bucket(CATS, 8, 8, slots=4)
ROOT = Path(__file__).parents[3]

Wait = Callable[..., None]
Start = Callable[..., Engine]


class Painter:
    """A renderer whose pixels tell the seed; the prompt says what goes wrong."""

    device, precision = "cpu", "bf16"
    versions: Mapping[str, str] = {}

    def __init__(self, gate: threading.Event | None = None, fits: int = 1024) -> None:
        self.gate, self.fits = gate, fits
        self.entered = threading.Event()
        self.steps: list[list[int]] = []
        """The seeds in the slots of each forward."""
        self.buckets: list[Bucket] = []
        """Of each call of render."""
        self.alone: list[int] = []

    def forwards(self, request: ImageRequest) -> int:
        return request.num_inference_steps

    def measure_slots(self, height: int, width: int) -> int:
        return 4

    def render(
        self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]
    ) -> Iterator[list[tuple[Order, Picture | ImagemillError]]]:
        self.buckets.append(bucket)
        left: dict[Order, int] = {}
        while True:
            free = bucket.slots - sum(slots_alone(order.request) for order in left)
            left |= {order: order.request.num_inference_steps for order in source.take(free)}
            if not left:
                return
            assert sum(slots_alone(order.request) for order in left) <= bucket.slots
            assert all(replace(order.bucket, slots=bucket.slots) == bucket for order in left)
            self.steps.append([order.request.seed for order in left])
            self.entered.set()
            while self.gate is not None and not self.gate.wait(0.01):
                if stop():
                    raise Stopped
            if stop():
                raise Stopped
            if bucket.slots > self.fits and len(self.steps) > 1:
                raise OutOfMemory("tried to allocate 20 GiB")
            if any(order.request.prompt == "raise" for order in left):
                raise RuntimeError("index out of range\nsecond line")
            left = {order: count - 1 for order, count in left.items()}
            yield [(order, paint(order.request, alone=False)) for order, count in left.items() if not count]
            left = {order: count for order, count in left.items() if count}

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        self.alone.append(request.seed)
        if request.prompt == "raise":
            raise RuntimeError("index out of range")
        picture = paint(request, alone=True)
        assert isinstance(picture, Picture)
        return picture


def paint(request: ImageRequest, *, alone: bool) -> Picture | ImagemillError:
    if request.prompt == "refused":
        return RenderError("no such number of steps")
    pixels = np.full((8, 8, 3), request.seed, np.uint8)
    if request.prompt == "flat" or (request.prompt == "flat among others" and not alone):
        return Picture(pixels, finite=True)
    pixels[0, 0] = 255
    nan = request.prompt == "nan" or (request.prompt == "nan among others" and not alone)
    return Picture(pixels, finite=not nan)


class Desk:
    """Places orders and keeps what came of each, by its seed."""

    def __init__(self, bucket: Bucket = BUCKET) -> None:
        self.bucket = bucket
        self.outcomes: dict[int, Outcome] = {}
        self.deliveries: list[int] = []

    def order(
        self,
        seed: int,
        prompt: str = "",
        *,
        bucket: Bucket | None = None,
        steps: int = 1,
        guidance: float = 1.0,
        init_latents: np.ndarray | None = None,
        **settings: Any,
    ) -> Order:
        bucket = self.bucket if bucket is None else bucket
        request = ImageRequest(
            prompt=prompt,
            seed=seed,
            model=bucket.pipeline.model,
            revision=bucket.pipeline.revision,
            height=bucket.height,
            width=bucket.width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            **settings,
        )

        def deliver(outcome: Outcome) -> None:
            self.outcomes[seed] = outcome
            self.deliveries.append(seed)

        return Order(bucket, request, init_latents, deliver)

    def finished(self, seed: int) -> Finished:
        outcome = self.outcomes[seed]
        assert isinstance(outcome, Finished), outcome
        return outcome

    def seed_painted(self, seed: int) -> int:
        """The seed that the picture delivered for `seed` shows."""
        return int(self.finished(seed).picture.pixels[7, 7, 0])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts an engine on a renderer, or on what loads one, with orders in line; it is closed at the end."""
    engines: list[Engine] = []

    def begin(renderer: object, orders: Sequence[Order] = ()) -> Engine:
        load = renderer if callable(renderer) else lambda _pipeline: renderer
        engines.append(Engine(load))  # type: ignore[arg-type]
        engines[-1].submit(orders)
        engines[-1].start()
        return engines[-1]

    yield begin
    for engine in engines:
        engine.close()


# Schedule.


def test_images_enter_as_others_leave_and_the_longest_go_first(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    steps = {1: 1, 2: 3, 3: 2, 4: 1, 5: 4}
    start(painter, [desk.order(seed, steps=count) for seed, count in steps.items()])
    wait_until(lambda: len(desk.outcomes) == 5, "all are delivered")
    assert painter.steps == [[5, 2, 3, 1], [5, 2, 3, 4], [5, 2], [5]]
    assert [desk.seed_painted(seed) for seed in steps] == list(steps)


def test_a_guided_image_takes_two_slots(desk: Desk, start: Start, wait_until: Wait) -> None:
    painter = Painter()
    start(painter, [desk.order(seed, steps=9 - seed, guidance=1.0 + seed % 2) for seed in range(5)])
    wait_until(lambda: len(desk.outcomes) == 5, "all are delivered")
    assert painter.steps[0] == [0, 1, 2]


def test_images_of_another_shard_enter_the_slots_of_the_first(start: Start, wait_until: Wait) -> None:
    first, second, gate = Desk(), Desk(), threading.Event()
    painter = Painter(gate)
    engine = start(painter, [first.order(1, steps=2), first.order(2, steps=2)])
    assert painter.entered.wait(10)
    engine.submit([second.order(3), second.order(4)])
    gate.set()
    wait_until(lambda: len(first.outcomes) + len(second.outcomes) == 4, "both shards are delivered")
    assert painter.steps == [[1, 2], [1, 2, 3, 4]]
    assert len(painter.buckets) == 1
    assert (sorted(first.outcomes), sorted(second.outcomes)) == ([1, 2], [3, 4])
    assert [second.seed_painted(seed) for seed in (3, 4)] == [3, 4]
    assert engine.images == 4


def test_neither_pipelines_nor_sizes_nor_modes_are_ever_mixed(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painters = {CATS: Painter(), DOGS: Painter()}
    loaded: list[Pipeline] = []

    def load(pipeline: Pipeline) -> Painter:
        loaded.append(pipeline)
        return painters[pipeline]

    orders = [
        desk.order(
            seed,
            bucket=replace(
                BUCKET,
                pipeline=(CATS, DOGS)[seed % 2],
                height=(8, 16, 24)[seed % 3],
                mode=("exact", "exact", "exact", "fast")[seed % 4],  # type: ignore[arg-type]
            ),
            steps=1 + seed % 5,
            guidance=(1.0, 7.5)[seed % 5 == 0],
        )
        for seed in range(60)
    ]
    start(load, orders)  # Painter.render asserts the rest
    wait_until(lambda: len(desk.outcomes) == 60, "all are delivered")
    for parity, pipeline in enumerate((CATS, DOGS)):
        entered = {seed for step in painters[pipeline].steps for seed in step}
        assert entered == set(range(parity, 60, 2))
    # The loaded pipeline is kept while it has orders: a change costs a load.
    assert loaded == [CATS, DOGS]
    assert [len(painter.buckets) for painter in painters.values()] == [3, 6]


def test_another_bucket_gets_its_turn_however_much_comes_for_the_first(
    desk: Desk, start: Start, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders_module, "PATIENCE", 0.2)
    gate = threading.Event()
    painter, dog = Painter(gate), Painter()
    engine = start(lambda pipeline: painter if pipeline == CATS else dog, [desk.order(0, steps=3)])
    assert painter.entered.wait(10)
    engine.submit([desk.order(seed, steps=3) for seed in range(1, 9)])
    engine.submit([desk.order(9, bucket=replace(BUCKET, pipeline=DOGS))])
    gate.wait(0.4)  # the forward takes longer than the dog waits
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 10, "all are delivered")
    assert desk.deliveries[:2] == [0, 9]
    assert painter.steps[:4] == [[0], [0], [0], [1, 2, 3, 4]]


def test_questions_are_answered_between_forwards(desk: Desk, start: Start, wait_until: Wait) -> None:
    gate, painter = threading.Event(), Painter()
    engine = start(painter)
    asked_idle = engine.ask(CATS, lambda renderer: (renderer.device, threading.current_thread().name))
    assert asked_idle.result(10) == ("cpu", "engine")
    painter.gate = gate
    engine.submit([desk.order(1, steps=3)])
    assert painter.entered.wait(10)
    asked_busy = engine.ask(CATS, lambda _renderer: len(painter.steps))
    assert not asked_busy.done()
    gate.set()
    assert asked_busy.result(10) == 1
    wait_until(lambda: 1 in desk.outcomes, "the image is delivered")


def test_what_a_question_raises_reaches_whoever_asked(start: Start) -> None:
    engine = start(Painter())

    def no_room(_renderer: Renderer) -> None:
        raise OutOfMemory("tried to allocate 20 GiB")

    def broken(_renderer: Renderer) -> None:
        raise KeyError("x")

    with pytest.raises(ModelError, match="cats does not fit this device: OutOfMemory: tried to allocate"):
        engine.ask(CATS, no_room).result(10)
    with pytest.raises(KeyError):
        engine.ask(CATS, broken).result(10)
    assert engine.ask(CATS, lambda renderer: renderer.precision).result(10) == "bf16"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelError("cats: not there"), "cats: not there"),
        (SettingsError("device = 'cuda': no GPU here"), "device = 'cuda': no GPU here"),
        (OSError("disk\nfull"), "cats cannot be loaded: OSError: disk"),
    ],
    ids=["no model", "no device", "anything else"],
)
def test_a_pipeline_that_cannot_be_loaded_refuses_orders_and_questions_and_others_go_on(
    desk: Desk, start: Start, wait_until: Wait, error: Exception, told: str
) -> None:
    def load(pipeline: Pipeline) -> Painter:
        if pipeline == CATS:
            raise error
        return Painter()

    def order(seed: int) -> Order:
        pipeline, height = (CATS, DOGS)[seed % 2], (8, 16)[seed % 3 == 0]
        return desk.order(seed, bucket=replace(BUCKET, pipeline=pipeline, height=height))

    engine = start(load, [order(seed) for seed in range(9)])
    answer = engine.ask(CATS, lambda renderer: renderer.device)
    with pytest.raises(ModelError) as caught:
        answer.result(10)
    assert str(caught.value) == told
    wait_until(lambda: len(desk.outcomes) == 9, "all are delivered")
    for seed in range(0, 9, 2):
        refusal = desk.outcomes[seed]
        assert isinstance(refusal, ModelError)
        assert str(refusal) == told
    assert [desk.seed_painted(seed) for seed in range(1, 9, 2)] == [1, 3, 5, 7]
    engine.submit([order(20), order(21)])
    wait_until(lambda: len(desk.outcomes) == 11, "later orders end the same way")
    assert isinstance(desk.outcomes[20], ModelError)
    assert desk.seed_painted(21) == 21


# Memory.


def test_out_of_memory_halves_the_slots_and_loses_no_image(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter(fits=2)
    bucket = replace(BUCKET, slots=8)
    engine = start(painter, [desk.order(seed, bucket=bucket, steps=1 + seed % 3) for seed in range(12)])
    wait_until(lambda: len(desk.outcomes) == 12, "all are delivered")
    assert [desk.seed_painted(seed) for seed in range(12)] == list(range(12))
    assert sorted(desk.deliveries) == list(range(12))
    assert [one.slots for one in painter.buckets] == [8, 4, 2]
    assert {desk.finished(seed).rendered_by.rows for seed in range(12)} == {2}
    assert engine.fitting(bucket) == replace(bucket, slots=2)
    other = replace(bucket, height=16)
    assert engine.fitting(other) == other
    engine.submit([desk.order(20, bucket=bucket)])
    wait_until(lambda: 20 in desk.outcomes, "a later order")
    assert painter.buckets[-1].slots == 2, "the cap is remembered"


def test_slots_are_never_halved_below_what_a_guided_image_takes(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter(fits=2)
    bucket = replace(BUCKET, slots=3)
    start(painter, [desk.order(seed, bucket=bucket, guidance=7.5, steps=2) for seed in range(3)])
    wait_until(lambda: len(desk.outcomes) == 3, "all are delivered")
    assert [one.slots for one in painter.buckets] == [3, 2]


def test_a_model_that_does_not_fit_at_all_is_refused(desk: Desk, start: Start, wait_until: Wait) -> None:
    engine = start(Painter(fits=0), [desk.order(seed, steps=5) for seed in range(6)])
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    for outcome in desk.outcomes.values():
        assert isinstance(outcome, ModelError)
        assert str(outcome) == "cats does not fit this device: OutOfMemory: tried to allocate 20 GiB"
    assert engine.images == 0


# Bad images.


def test_one_image_that_raises_is_isolated_by_halves_and_the_rest_goes_on(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(seed, "raise" if seed == 2 else "") for seed in range(6)])
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    assert [desk.seed_painted(seed) for seed in (0, 1, 3, 4, 5)] == [0, 1, 3, 4, 5]
    failure = desk.outcomes[2]
    assert isinstance(failure, RenderError)
    assert str(failure) == "raised RuntimeError: index out of range, alone in fp32 too"
    assert painter.steps == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5]]
    assert painter.alone == [2]
    assert {one.slots for one in painter.buckets} == {4}, "the bytes of the others hang on it"
    assert sorted(desk.deliveries) == list(range(6))


def test_a_picture_that_is_not_finite_is_rendered_once_alone_and_then_fails(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    orders = [desk.order(0), desk.order(1, "nan"), desk.order(2, "nan among others", guidance=2.0)]
    start(painter, orders)
    wait_until(lambda: len(desk.outcomes) == 3, "all are delivered")
    assert painter.alone == [1, 2]
    failure = desk.outcomes[1]
    assert isinstance(failure, RenderError)
    assert str(failure) == "the model gave non-finite values, alone in fp32 too"
    mended = desk.finished(2)
    assert (mended.rendered_by.precision, mended.rendered_by.rows, mended.flagged) == ("fp32", 2, None)
    untouched = desk.finished(0).rendered_by
    assert (untouched.precision, untouched.slots, untouched.mode) == ("bf16", 4, "exact")


def test_a_flat_picture_is_rendered_once_alone_and_kept_with_a_flag_if_it_is_flat_again(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(1, "flat"), desk.order(2, "flat among others")])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert painter.alone == [1, 2]
    assert [desk.finished(seed).flagged for seed in (1, 2)] == ["one flat colour", None]
    assert desk.seed_painted(1) == 1
    assert desk.finished(1).rendered_by.precision == "fp32"


def test_a_request_that_cannot_be_rendered_fails_by_itself(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(1, "refused"), desk.order(2)])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert isinstance(desk.outcomes[1], RenderError)
    assert str(desk.outcomes[1]) == "no such number of steps"
    assert (painter.steps, painter.alone) == ([[1, 2]], [])


# Retire.


def test_withdrawn_orders_are_not_rendered_and_those_in_the_slots_are_delivered(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate)
    orders = [desk.order(seed) for seed in range(10)]
    engine = start(painter, orders)
    assert painter.entered.wait(10)
    engine.submit([desk.order(50)])
    assert engine.withdraw(orders) == 6
    assert engine.withdraw(orders) == 0
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 5, "what was in the slots, and the order that stays")
    assert sorted(desk.deliveries) == [0, 1, 2, 3, 50]
    assert painter.steps == [[0, 1, 2, 3], [50]]


def slow_orders(gate: threading.Event, delivered: list[int], count: int) -> list[Order]:
    """Orders whose pictures take as long to write as the gate is closed."""

    def order(seed: int) -> Order:
        def deliver(_outcome: Outcome) -> None:
            gate.wait(20)
            delivered.append(seed)

        return replace(Desk().order(seed), deliver=deliver)

    return [order(seed) for seed in range(count)]


def test_slow_writers_hold_the_engine_at_twice_the_slots(start: Start, wait_until: Wait) -> None:
    gate, painter = threading.Event(), Painter()
    delivered: list[int] = []
    engine = start(painter, slow_orders(gate, delivered, 40))
    try:
        wait_until(lambda: len(painter.steps) == 3, "the engine is one forward past what may wait")
        held = threading.Event()
        # Pictures of two forwards wait for the writers; those of the third cannot be handed on.
        assert not held.wait(0.3)
        assert (len(painter.steps), engine.images, delivered) == (3, 8, [])
        engine.flush(timeout=0.05)
        assert delivered == []
    finally:
        gate.set()  # or nobody could end the engine
    wait_until(lambda: len(delivered) == 40, "all are written")
    engine.flush(timeout=10)
    assert sorted(delivered) == list(range(40))


def test_an_engine_that_waits_for_its_writers_hears_that_it_is_stopped(
    start: Start, wait_until: Wait
) -> None:
    gate, painter = threading.Event(), Painter()
    engine = start(painter, slow_orders(gate, [], 20))
    wait_until(lambda: len(painter.steps) == 3, "a third forward finds the writers' line full")
    engine.stop()
    engine._thread.join(3)
    still_there = engine._thread.is_alive()
    gate.set()
    assert not still_there


def test_stopped_in_a_forward_it_delivers_nothing_of_it_and_nothing_twice(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    engine = start(painter, [desk.order(seed) for seed in range(4)])
    wait_until(lambda: len(desk.outcomes) == 4, "the first forward is delivered")
    painter.gate = threading.Event()
    painter.entered.clear()
    engine.submit([desk.order(seed) for seed in range(4, 12)])
    assert painter.entered.wait(10)
    engine.close()
    assert len(painter.steps) == 2
    assert sorted(desk.deliveries) == [0, 1, 2, 3]


def test_an_error_before_any_image_was_taken_refuses_the_pipeline(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    class Misbuilt(Painter):
        def render(self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]) -> Any:
            raise ValueError("no such layer")

    start(Misbuilt(), [desk.order(1)])
    wait_until(lambda: 1 in desk.outcomes, "it is told")
    outcome = desk.outcomes[1]
    assert isinstance(outcome, ModelError)
    assert str(outcome) == "cats cannot render here: ValueError: no such layer"


def test_an_error_that_passes_costs_no_image_its_slots(desk: Desk, start: Start, wait_until: Wait) -> None:
    class Unlucky(Painter):
        def render(self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]) -> Any:
            for finished in super().render(bucket, source, stop):
                if len(self.buckets) == 1:
                    raise RuntimeError("once")
                yield finished

    painter = Unlucky()
    start(painter, [desk.order(1)])
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
    assert (desk.finished(1).rendered_by.rows, painter.alone) == (4, [])


def test_the_model_before_is_gone_when_the_next_one_loads(desk: Desk, start: Start, wait_until: Wait) -> None:
    before: list[weakref.ref[Painter]] = []
    alive: list[bool] = []

    def load(pipeline: Pipeline) -> Painter:
        alive.extend(reference() is not None for reference in before)
        painter = Painter()
        before.append(weakref.ref(painter))
        return painter

    start(load, [desk.order(1), desk.order(2, bucket=replace(BUCKET, pipeline=DOGS))])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert alive == [False]


def test_whoever_was_answered_may_order_before_another_model_is_loaded(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    loads: list[Pipeline] = []

    def load(pipeline: Pipeline) -> Painter:
        loads.append(pipeline)
        return Painter()

    engine = start(load)
    dogs = replace(BUCKET, pipeline=DOGS)
    answer = engine.ask(CATS, lambda renderer: renderer.device)
    engine.submit([desk.order(1, bucket=dogs)])
    assert answer.result(10) == "cpu"
    assert engine.ask(CATS, lambda renderer: renderer.measure_slots(8, 8)).result(10) == 4
    time.sleep(0.2)  # what a call to the ledger takes
    engine.submit([desk.order(2)])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert loads in ([CATS, DOGS], [DOGS, CATS])


def test_a_question_that_nobody_waits_for_loads_nothing(desk: Desk, start: Start, wait_until: Wait) -> None:
    loads: list[Pipeline] = []
    gate = threading.Event()
    painter = Painter(gate)
    engine = start(lambda pipeline: loads.append(pipeline) or painter, [desk.order(1)])
    assert painter.entered.wait(10)
    mine, others = engine.ask(CATS, lambda _r: 1), engine.ask(DOGS, lambda _r: 1)
    assert mine.cancel()
    assert others.cancel()
    gate.set()
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
    engine.submit([desk.order(2)])
    wait_until(lambda: 2 in desk.outcomes, "the engine goes on")
    assert loads == [CATS]


def test_no_memory_beside_the_slots_postpones_a_doubtful_image_until_they_are_empty(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    class Tight(Painter):
        in_slots = False

        def render(self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]) -> Any:
            self.in_slots = True
            yield from super().render(bucket, source, stop)
            self.in_slots = False

        def render_alone(self, *asked: Any) -> Picture:
            if self.in_slots:
                raise OutOfMemory("tried to allocate 20 GiB")
            return super().render_alone(*asked)

    painter = Tight()
    start(painter, [desk.order(1, "nan among others"), *(desk.order(seed, steps=3) for seed in range(2, 9))])
    wait_until(lambda: len(desk.outcomes) == 8, "all are delivered")
    assert [desk.seed_painted(seed) for seed in range(1, 9)] == list(range(1, 9))
    assert painter.alone == [1]


def test_out_of_memory_begins_nothing_anew_that_was_withdrawn(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate, fits=2)
    orders = [desk.order(seed, steps=3) for seed in range(4)]
    gate.set()
    engine = start(painter)
    painter.gate = gate = threading.Event()
    engine.submit(orders)
    assert painter.entered.wait(10)
    engine.withdraw(orders[:2])
    gate.set()
    wait_until(lambda: {2, 3} <= set(desk.outcomes), "the others are delivered")
    assert all(set(slots) <= {2, 3} for slots in painter.steps[2:])


def test_an_order_that_is_to_be_alone_gets_all_slots_once_they_are_empty(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate, told = threading.Event(), []
    painter = Painter(gate)
    engine = start(painter, [desk.order(seed, steps=seed) for seed in (1, 2, 3)])
    assert painter.entered.wait(5)
    for seed in (7, 8):
        began = partial(lambda seed: told.append((seed, len(painter.steps), desk.deliveries.copy())), seed)
        engine.submit([replace(desk.order(seed), alone=began)])
    engine.submit([desk.order(9)])
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    assert painter.steps == [[3, 2, 1], [3, 2], [3], [7], [8], [9]]
    assert [(seed, steps) for seed, steps, _ in told] == [(7, 3), (8, 4)]
    assert desk.finished(7).rendered_by.rows == BUCKET.slots


def test_what_its_beginning_raises_is_an_order_s_end(desk: Desk, start: Start, wait_until: Wait) -> None:
    painter = Painter()

    def begin() -> None:
        raise LeaseLost("another attempt's")

    start(painter, [replace(desk.order(1), alone=begin), desk.order(2)])
    wait_until(lambda: len(desk.outcomes) == 2, "both end")
    assert isinstance(desk.outcomes[1], LeaseLost)
    assert painter.steps == [[2]]


def test_what_is_in_the_slots_or_unwritten_is_in_flight(desk: Desk, start: Start, wait_until: Wait) -> None:
    gate, entered = threading.Event(), []
    painter, may_write = Painter(gate), threading.Event()
    order = desk.order(1)
    slow = replace(order, deliver=lambda outcome: (may_write.wait(5), order.deliver(outcome)))
    engine = Engine(lambda _pipeline: painter, on_taken=lambda: entered.append(engine.in_flight()))
    try:
        engine.submit([slow])
        assert engine.in_flight() == []
        engine.start()
        assert painter.entered.wait(5)
        assert entered == [[slow]]
        gate.set()
        wait_until(lambda: engine.images == 1, "it is painted")
        assert engine.in_flight() == [slow]
        may_write.set()
        wait_until(lambda: engine.in_flight() == [], "it is written")
    finally:
        may_write.set()
        engine.close()


@pytest.mark.parametrize("full", [False, True])
def test_what_is_looked_at_again_is_in_flight(desk: Desk, wait_until: Wait, full: bool) -> None:
    """Also when memory is too full for it beside the others, and it has to wait for them."""
    seen: list[list[int]] = []

    class Looking(Painter):
        def render_alone(self, *arguments: Any) -> Picture:
            seen.append([order.request.seed for order in engine.in_flight()])
            if full and len(seen) == 1:
                raise OutOfMemory("tried to allocate 20 GiB")
            return super().render_alone(*arguments)

    engine = Engine(lambda _pipeline: Looking())
    try:
        engine.submit([desk.order(1, "nan among others")])
        engine.start()
        wait_until(lambda: 1 in desk.outcomes, "it is delivered")
        wait_until(lambda: engine.in_flight() == [], "nothing is left")
    finally:
        engine.close()
    assert seen == [[1]] * (2 if full else 1)


def test_an_order_is_alone_only_when_all_before_it_is_written(desk: Desk, wait_until: Wait) -> None:
    may_write, began = threading.Event(), threading.Event()
    first = desk.order(1)
    slow = replace(first, deliver=lambda outcome: (may_write.wait(5), first.deliver(outcome)))
    engine = Engine(lambda _pipeline: Painter())
    try:
        engine.submit([slow])
        engine.start()
        wait_until(lambda: engine.images == 1, "the first is painted")
        engine.submit([replace(desk.order(2), alone=began.set)])
        assert not began.wait(0.5)
        may_write.set()
        wait_until(lambda: 2 in desk.outcomes, "the second is delivered")
    finally:
        may_write.set()
        engine.close()
    assert desk.deliveries == [1, 2]


def test_nothing_enters_the_slots_until_what_was_alone_there_is_written(desk: Desk, wait_until: Wait) -> None:
    """Whoever dies of what comes next would have it charged."""
    painter, may_write = Painter(), threading.Event()
    alone = desk.order(1)
    slow = replace(
        alone, deliver=lambda outcome: (may_write.wait(5), alone.deliver(outcome)), alone=lambda: None
    )
    engine = Engine(lambda _pipeline: painter)
    try:
        engine.submit([slow, desk.order(2)])
        engine.start()
        wait_until(lambda: engine.images == 1, "the first is painted")
        deadline = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > deadline, "the next would have come")
        assert painter.steps == [[1]]
        may_write.set()
        wait_until(lambda: 2 in desk.outcomes, "the next is delivered")
    finally:
        may_write.set()
        engine.close()


def test_an_order_to_be_alone_can_be_withdrawn_and_refused(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate)
    engine = start(painter, [desk.order(1)])
    assert painter.entered.wait(5)
    withdrawn = replace(desk.order(2), alone=lambda: None)
    engine.submit([withdrawn])
    assert engine.withdraw([withdrawn]) == 1
    gate.set()
    wait_until(lambda: 1 in desk.outcomes, "the first is delivered")
    elsewhere = Desk(replace(BUCKET, pipeline=DOGS))
    refusing = start(ModelLess())
    refusing.submit([replace(elsewhere.order(3), alone=lambda: None)])
    wait_until(lambda: 3 in elsewhere.outcomes, "it is refused")
    assert isinstance(elsewhere.outcomes[3], ModelError)
    assert 2 not in desk.outcomes


class ModelLess:
    """Loads nothing."""

    def __call__(self, _pipeline: Pipeline) -> Renderer:
        raise ModelError("there is none")


def test_an_engine_that_was_never_started_can_be_closed() -> None:
    Engine(lambda _pipeline: Painter()).close()


def ended(code: str) -> subprocess.CompletedProcess[str]:
    begin = """
import threading
from jobs.request import ImageRequest
from worker.engine.engine import Engine
from worker.engine.request_queue import Order
from worker.engine.renderer import BrokenDevice, Bucket, Pipeline

pipeline = Pipeline("m", "1", "auto")
request = ImageRequest(prompt="", seed=0, model="m", revision="1")
order = Order(Bucket(pipeline, 8, 8, slots=4), request, None, print)
"""
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_broken_device_ends_the_process() -> None:
    """A worker without its engine would keep its leases alive and render nothing."""
    done = ended("""
class Broken:
    def render(self, bucket, source, stop):
        raise BrokenDevice("an illegal memory access was encountered")

engine = Engine(lambda pipeline: Broken())
engine.submit([order])
engine.start()
threading.Event().wait(20)
""")
    assert done.returncode == 70
    assert "the engine's thread died" in done.stderr
    assert "BrokenDevice: an illegal memory access" in done.stderr


def test_a_model_that_fails_to_load_after_the_end_does_not_end_it_another_way() -> None:
    done = ended("""
loading, closed = threading.Event(), threading.Event()

def load(pipeline):
    loading.set()
    closed.wait(20)
    raise OSError("the mount went away")

engine = Engine(load)
engine.submit([order])
engine.start()
loading.wait(20)
engine.close()
closed.set()
engine._thread.join(20)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# With the real renderer.

SHAPES = Pipeline("shapes-random", "shapes-random-1", "fp32")
REAL = Bucket(SHAPES, 16, 16, slots=8)


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(*("shapes-random", "shapes-random-1"), "fp32", "cpu")
    torch.set_num_threads(before)


def real_orders(desk: Desk, bucket: Bucket = REAL) -> list[Order]:
    """Ten images of many settings, seeds 0 .. 9."""
    names = ("LMS", "Euler a", "DDIM", "DPM++ 2M")
    return [
        desk.order(
            seed,
            f"a star {seed}",
            bucket=bucket,
            steps=2 + seed % 4,
            guidance=(7.5, 1.0, 3.0)[seed % 3],
            scheduler=names[seed % 4],
        )
        for seed in range(10)
    ]


def pixels_of(desk: Desk, seeds: Sequence[int]) -> dict[int, bytes]:
    return {seed: desk.finished(seed).picture.pixels.tobytes() for seed in seeds}


Undisturbed = Callable[[int], dict[int, bytes]]


@pytest.fixture(scope="module")
def undisturbed(model: ImageDiffusionModel, wait_until: Wait) -> Undisturbed:
    """The ten pictures as they are without misfortune, in so many slots."""
    known: dict[int, dict[int, bytes]] = {}

    def render(slots: int) -> dict[int, bytes]:
        if slots not in known:
            desk, engine = Desk(), Engine(lambda _pipeline: DiffusionRenderer(model))
            engine.submit(real_orders(desk, replace(REAL, slots=slots)))
            done = engine.ask(SHAPES, lambda _renderer: None)
            engine.start()
            done.result(60)
            wait_until(lambda desk=desk: len(desk.outcomes) == 10, "all are delivered", 60)
            engine.close()
            known[slots] = pixels_of(desk, range(10))
        return known[slots]

    return render


def test_memory_that_runs_out_in_a_forward_costs_slots_and_no_picture(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    forwards: list[int] = []

    def run_out(_module: object, args: tuple[torch.Tensor]) -> None:
        forwards.append(len(args[0]))
        if len(args[0]) == 8 and len(forwards) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    by_slots = {slots: undisturbed(slots) for slots in (8, 4)}
    hook = model.unet.register_forward_pre_hook(run_out)
    engine = start(DiffusionRenderer(model), real_orders(desk))
    wait_until(lambda: len(desk.outcomes) == 10, "all are delivered", 60)
    hook.remove()
    assert sorted(desk.deliveries) == list(range(10))
    slots = {seed: desk.finished(seed).rendered_by.rows for seed in range(10)}
    assert set(slots.values()) == {8, 4}, "some were finished before"
    assert pixels_of(desk, range(10)) == {seed: by_slots[slots[seed]][seed] for seed in range(10)}
    assert engine.fitting(REAL).slots == 4


def test_bad_images_in_a_real_forward_fail_and_their_neighbours_keep_their_bytes(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    """One is not finite; one makes the UNet raise, so everything in flight with it is rendered again."""
    expected = undisturbed(8)

    def raise_at(_module: object, args: tuple[torch.Tensor]) -> None:
        if (args[0] > 1e6).any():
            raise RuntimeError("index out of range")

    def bad(seed: int, value: float) -> Order:
        start_at = np.full((4, 4, 4), value, np.float32)
        return desk.order(seed, bucket=REAL, steps=3, guidance=2.0, init_latents=start_at)

    orders = real_orders(desk)
    orders[2:2] = [bad(20, np.nan)]
    orders[6:6] = [bad(21, 1e8)]
    hook = model.unet.register_forward_pre_hook(raise_at)
    start(DiffusionRenderer(model), orders)
    wait_until(lambda: len(desk.outcomes) == 12, "all are delivered", 60)
    hook.remove()
    assert sorted(desk.deliveries) == [*range(10), 20, 21]
    for seed, told in {
        20: "the model gave non-finite values, alone in fp32 too",
        21: "raised RuntimeError: index out of range, alone in fp32 too",
    }.items():
        failure = desk.outcomes[seed]
        assert isinstance(failure, RenderError)
        assert str(failure) == told
    assert pixels_of(desk, range(10)) == expected


def test_a_number_of_steps_that_a_scheduler_cannot_take_fails_its_image_alone(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    orders = [*real_orders(desk), desk.order(20, bucket=REAL, steps=1500, scheduler="DDIM")]
    start(DiffusionRenderer(model), orders)
    wait_until(lambda: len(desk.outcomes) == 11, "all are delivered", 60)
    assert isinstance(desk.outcomes[20], RenderError)
    assert "num_inference_steps = 1500: DDIM cannot run so many" in str(desk.outcomes[20])
    assert pixels_of(desk, range(10)) == undisturbed(8)
