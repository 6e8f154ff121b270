"""The engine fills micro-batches, isolates what is bad in them, and hands each picture to whom it belongs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import ModelError, RenderError, SettingsError
from jobs.request import ImageRequest
from worker.engine import Engine, Finished, Order, Outcome, Pipeline
from worker.renderer import OutOfMemory, Picture, RenderedBy, Stopped, batch_key

CATS, DOGS = Pipeline("cats", "1", "auto"), Pipeline("dogs", "1", "auto")
ROOT = Path(__file__).parents[2]


class Painter:
    """A renderer of four images a batch whose pixels tell the seed; the prompt says what goes wrong."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.rendered_by = RenderedBy(precision="bf16", rows=4, device="cpu", versions={})
        self.batches: list[list[ImageRequest]] = []
        self.alone: list[ImageRequest] = []
        self._gate = gate
        self.entered = threading.Event()

    def batch_size(self, request: ImageRequest) -> int:
        return 4

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        self.batches.append(list(requests))
        self.entered.set()
        while self._gate is not None and not self._gate.wait(0.01):
            if stop():
                raise Stopped
        if any(request.prompt == "raise" for request in requests):
            raise RuntimeError("index out of range\nsecond line")
        return [paint(request, alone=False) for request in requests]

    def halve_rows(self) -> bool:
        return False

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        self.alone.append(request)
        if request.prompt == "raise":
            raise RuntimeError("index out of range")
        return paint(request, alone=True)


def paint(request: ImageRequest, *, alone: bool) -> Picture:
    pixels = np.full((8, 8, 3), request.seed, np.uint8)
    if request.prompt == "flat" or (request.prompt == "flat in a batch" and not alone):
        return Picture(pixels, finite=True)
    pixels[0, 0] = 255
    nan = request.prompt == "nan" or (request.prompt == "nan in a batch" and not alone)
    return Picture(pixels, finite=not nan)


class Desk:
    """Places orders and keeps what came of each, by its seed."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.deliveries: list[int] = []

    def order(
        self,
        seed: int,
        prompt: str = "",
        *,
        pipeline: Pipeline = CATS,
        height: int = 8,
        guidance: float = 1.0,
    ) -> Order:
        request = ImageRequest(
            prompt=prompt, seed=seed, model="m", revision="1", height=height, width=8, guidance_scale=guidance
        )

        def deliver(outcome: Outcome) -> None:
            self.outcomes[seed] = outcome
            self.deliveries.append(seed)

        return Order(pipeline, request, None, deliver)

    def seed_painted(self, seed: int) -> int:
        """The seed that the picture delivered for `seed` shows."""
        outcome = self.outcomes[seed]
        assert isinstance(outcome, Finished)
        return int(outcome.picture.pixels[7, 7, 0])


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts an engine on a painter with orders in line; it is closed at the end."""
    engines: list[Engine] = []

    def begin(painter: object, orders: Sequence[Order] = (), *, rows: int = 64) -> Engine:
        load = painter if callable(painter) else lambda _pipeline: painter
        engines.append(Engine(load, rows=rows))  # type: ignore[arg-type]
        engines[-1].submit(orders)
        engines[-1].start()
        return engines[-1]

    yield begin
    for engine in engines:
        engine.close()


Wait = Callable[..., None]
Start = Callable[..., Engine]


def seeds(batches: Sequence[Sequence[ImageRequest]]) -> list[list[int]]:
    return [[request.seed for request in batch] for batch in batches]


class SmallPainter(Painter):
    """A painter whose device holds `fits` images; it can go down to batches of `least`."""

    def __init__(self, fits: int, least: int) -> None:
        super().__init__()
        self.size, self.fits, self.least = 4, fits, least

    def batch_size(self, request: ImageRequest) -> int:
        return self.size

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        if len(requests) > self.fits:
            raise OutOfMemory("tried to allocate 20 GiB")
        return super().render(requests, init_latents, stop)

    def halve_rows(self) -> bool:
        if self.size <= self.least:
            return False
        self.size //= 2
        self.rendered_by = replace(self.rendered_by, rows=self.size)
        return True


def test_out_of_memory_halves_the_micro_batches_and_loses_no_image(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = SmallPainter(fits=2, least=1)
    start(painter, [desk.order(seed) for seed in range(1, 10)])
    wait_until(lambda: len(desk.outcomes) == 9, "all are delivered")
    assert [desk.seed_painted(seed) for seed in range(1, 10)] == list(range(1, 10))
    assert seeds(painter.batches) == [[1, 2], [3, 4], [5, 6], [7, 8], [9]]
    outcome = desk.outcomes[9]
    assert isinstance(outcome, Finished)
    assert outcome.rendered_by.rows == 2


def test_a_model_that_does_not_fit_at_all_is_refused(desk: Desk, start: Start, wait_until: Wait) -> None:
    start(SmallPainter(fits=0, least=1), [desk.order(seed) for seed in range(1, 6)])
    wait_until(lambda: len(desk.outcomes) == 5, "all are delivered")
    for outcome in desk.outcomes.values():
        assert isinstance(outcome, ModelError)
        assert "does not fit this device" in str(outcome)


def test_a_full_micro_batch_goes_before_an_older_partial_one(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(0, height=16), *(desk.order(seed) for seed in range(1, 6))])
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    assert seeds(painter.batches) == [[1, 2, 3, 4], [0], [5]]


def test_orders_of_two_shards_fill_one_micro_batch(desk: Desk, start: Start, wait_until: Wait) -> None:
    other, painter = Desk(), Painter()
    engine = start(painter)
    mixed = [desk.order(1), other.order(2), desk.order(3), other.order(4)]
    engine.submit(mixed)
    wait_until(lambda: len(desk.outcomes) + len(other.outcomes) == 4, "both shards are delivered")
    assert seeds(painter.batches) == [[1, 2, 3, 4]]
    assert (sorted(desk.outcomes), sorted(other.outcomes)) == ([1, 3], [2, 4])
    assert [desk.seed_painted(1), other.seed_painted(2), desk.seed_painted(3), other.seed_painted(4)] == [
        1,
        2,
        3,
        4,
    ]


def test_neither_pipelines_nor_settings_of_a_batch_are_ever_mixed(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painters = {CATS: Painter(), DOGS: Painter()}
    orders = [
        desk.order(
            seed,
            pipeline=(CATS, DOGS)[seed % 2],
            height=(8, 16, 24)[seed % 3],
            guidance=(1.0, 7.5)[seed % 5 == 0],
        )
        for seed in range(60)
    ]
    loaded: list[Pipeline] = []

    def load(pipeline: Pipeline) -> Painter:
        loaded.append(pipeline)
        return painters[pipeline]

    start(load, orders)
    wait_until(lambda: len(desk.outcomes) == 60, "all are delivered")
    for pipeline, painter in painters.items():
        assert {seed for batch in seeds(painter.batches) for seed in batch} == set(
            range((CATS, DOGS).index(pipeline), 60, 2)
        )
        assert all(len({batch_key(request) for request in batch}) == 1 for batch in painter.batches)
    # The loaded pipeline is kept while it has orders: a change costs a load.
    assert loaded == [CATS, DOGS]


def test_one_image_that_raises_is_isolated_and_its_neighbours_keep_their_own_pictures(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(seed, "raise" if seed == 2 else "") for seed in range(4)])
    wait_until(lambda: len(desk.outcomes) == 4, "all are delivered")
    assert [desk.seed_painted(seed) for seed in (0, 1, 3)] == [0, 1, 3]
    failure = desk.outcomes[2]
    assert isinstance(failure, RenderError)
    assert str(failure) == "raised RuntimeError: index out of range, alone in fp32 too"
    assert seeds(painter.batches) == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert sorted(desk.deliveries) == [0, 1, 2, 3]


def test_a_picture_that_is_not_finite_is_rendered_once_alone_and_then_fails(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(0), desk.order(1, "nan"), desk.order(2, "nan in a batch")])
    wait_until(lambda: len(desk.outcomes) == 3, "all are delivered")
    assert [request.seed for request in painter.alone] == [1, 2]
    failure = desk.outcomes[1]
    assert isinstance(failure, RenderError)
    assert "non-finite" in str(failure)
    mended = desk.outcomes[2]
    assert isinstance(mended, Finished)
    assert (mended.rendered_by.precision, mended.flagged) == ("fp32", None)
    untouched = desk.outcomes[0]
    assert isinstance(untouched, Finished)
    assert untouched.rendered_by.precision == "bf16"


def test_a_flat_picture_is_rendered_once_alone_and_kept_with_a_flag_if_it_is_flat_again(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    start(painter, [desk.order(1, "flat"), desk.order(2, "flat in a batch")])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert [request.seed for request in painter.alone] == [1, 2]
    flat, mended = desk.outcomes[1], desk.outcomes[2]
    assert isinstance(flat, Finished) and isinstance(mended, Finished)
    assert (flat.flagged, mended.flagged) == ("one flat colour", None)
    assert desk.seed_painted(1) == 1


@pytest.mark.parametrize(
    "error", [ModelError("cats: not there"), SettingsError("device = 'cuda': no GPU here")]
)
def test_a_pipeline_that_cannot_be_loaded_refuses_all_its_orders_and_others_go_on(
    desk: Desk, start: Start, wait_until: Wait, error: Exception
) -> None:
    painter = Painter()

    def load(pipeline: Pipeline) -> Painter:
        if pipeline == CATS:
            raise error
        return painter

    orders = [
        desk.order(seed, pipeline=(CATS, DOGS)[seed % 2], height=(8, 16)[seed % 3 == 0]) for seed in range(9)
    ]
    engine = start(load, orders)
    wait_until(lambda: len(desk.outcomes) == 9, "all are delivered")
    for seed in range(0, 9, 2):
        refusal = desk.outcomes[seed]
        assert isinstance(refusal, ModelError)
        assert str(refusal) == str(error)
    assert [desk.seed_painted(seed) for seed in range(1, 9, 2)] == [1, 3, 5, 7]
    engine.submit([desk.order(20, pipeline=DOGS), desk.order(21)])
    wait_until(lambda: len(desk.outcomes) == 11, "later orders end the same way")
    assert desk.seed_painted(20) == 20
    assert isinstance(desk.outcomes[21], ModelError)


def test_withdrawn_orders_are_not_rendered_and_those_in_the_micro_batch_are_delivered(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate)
    orders = [desk.order(seed) for seed in range(10)]
    engine = start(painter, orders)
    assert painter.entered.wait(10)
    keep = desk.order(50)
    engine.submit([keep])
    assert engine.withdraw(orders) == 6
    assert engine.withdraw(orders) == 0
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 5, "what was being rendered, and the order that stays")
    assert sorted(desk.deliveries) == [0, 1, 2, 3, 50]
    assert seeds(painter.batches) == [[0, 1, 2, 3], [50]]


def test_slow_writers_hold_the_engine_at_twice_the_rows(start: Start, wait_until: Wait) -> None:
    gate, lock = threading.Event(), threading.Lock()
    delivered: list[int] = []
    painter = Painter()

    def order(seed: int) -> Order:
        def deliver(_outcome: Outcome) -> None:
            gate.wait(20)
            with lock:
                delivered.append(seed)

        return Order(CATS, Desk().order(seed).request, None, deliver)

    engine = start(painter, [order(seed) for seed in range(40)], rows=4)
    wait_until(lambda: len(painter.batches) == 3, "the engine is one micro-batch past what may wait")
    held = threading.Event()
    # Two batches of four wait for the writers; the third is rendered and cannot be handed on.
    assert not held.wait(0.3)
    assert (len(painter.batches), engine.images, delivered) == (3, 8, [])
    engine.flush(timeout=0.05)
    assert delivered == []
    gate.set()
    wait_until(lambda: len(delivered) == 40, "all are written")
    engine.flush(timeout=10)
    assert sorted(delivered) == list(range(40))


def test_stopped_in_a_micro_batch_it_delivers_nothing_of_it_and_nothing_twice(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter()
    engine = start(painter, [desk.order(seed) for seed in range(4)])
    wait_until(lambda: len(desk.outcomes) == 4, "the first batch is delivered")
    painter._gate = gate
    painter.entered.clear()
    engine.submit([desk.order(seed) for seed in range(4, 12)])
    assert painter.entered.wait(10)
    engine.close()
    assert len(painter.batches) == 2
    assert sorted(desk.deliveries) == [0, 1, 2, 3]


def test_an_engine_that_waits_for_its_writers_hears_that_it_is_stopped(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate, painter = threading.Event(), Painter()

    def deliver(_outcome: Outcome) -> None:
        gate.wait(20)

    orders = [Order(CATS, desk.order(seed).request, None, deliver) for seed in range(9)]
    engine = start(painter, orders, rows=2)
    wait_until(lambda: len(painter.batches) == 2, "a second micro-batch finds the writers' line full")
    engine.stop()
    engine._thread.join(3)
    still_there = engine._thread.is_alive()
    gate.set()
    assert not still_there


def test_an_engine_that_was_never_started_can_be_closed() -> None:
    Engine(lambda _pipeline: Painter(), rows=4).close()


def test_a_defect_on_the_engines_thread_ends_the_process() -> None:
    """A worker without its engine would keep its leases alive and render nothing."""
    code = """
import threading
from jobs.request import ImageRequest
from worker.engine import Engine, Order, Pipeline

class Broken:
    def batch_size(self, request):
        return 4
    def render(self, requests, init_latents, stop):
        return []  # fewer pictures than requests: a defect, no bad image

engine = Engine(lambda pipeline: Broken(), rows=4)
request = ImageRequest(prompt="", seed=0, model="m", revision="1")
engine.submit([Order(Pipeline("m", "1", "auto"), request, None, print)])
engine.start()
threading.Event().wait(30)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 70
    assert "the engine's thread died" in ended.stderr
    assert "ValueError" in ended.stderr
