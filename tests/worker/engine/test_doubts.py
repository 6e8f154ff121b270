"""A doubtful picture is found among its neighbours and rendered alone: then it is good, flagged or failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.errors import ModelError, RenderError
from tests.worker.engine.desk import Desk, Painter, Start, Wait
from worker.engine.engine import Engine
from worker.engine.renderer import (
    Bucket,
    OutOfMemory,
    Picture,
    Source,
)
from worker.engine.request_queue import Order


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
    assert {one.slots for one in painter.buckets} == {4}, "the bytes of the others depend on it"
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
    assert (untouched.precision, untouched.rows, untouched.mode) == ("bf16", 4, "exact")


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


def test_an_error_before_any_image_was_taken_refuses_the_pipeline(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    class Misbuilt(Painter):
        def render(self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]) -> Any:
            raise ValueError("no such layer")

    start(Misbuilt(), [desk.order(1)])
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
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
