"""A renderer says how its images share forwards; the engine keeps to that and refuses the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from jobs.errors import ImagemillError, ModelError, RenderError
from tests.worker.engine.desk import BUCKET, CATS, DOGS, Desk, Painter, Start, Wait, paint
from worker.engine.renderer import Bucket, Picture, Source
from worker.engine.request_queue import Order

FAST = replace(BUCKET, mode="fast")


class AloneAtATime(Painter):
    """Takes an image whatever slots it has."""

    def render(
        self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]
    ) -> Iterator[list[tuple[Order, Picture | ImagemillError]]]:
        for order in source.take(8):
            yield [(order, paint(order.request, alone=True))]


NOT_EXACT = (
    "cats gives a picture other bytes beside other images, so its job cannot be of mode: exact: cancel the "
    "job, and submit it with `mode: fast`"
)


def test_a_renderer_whose_bytes_follow_the_neighbours_renders_mode_fast_and_refuses_exact(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter(batching="fast")
    orders = [desk.order(seed, bucket=(BUCKET, FAST)[seed % 2], steps=1 + seed % 3) for seed in range(12)]
    engine = start(painter, orders)
    wait_until(lambda: len(desk.outcomes) == 12, "all are delivered")
    for seed in range(0, 12, 2):
        refusal = desk.outcomes[seed]
        assert isinstance(refusal, ModelError)
        assert str(refusal) == NOT_EXACT
    assert [desk.seed_painted(seed) for seed in range(1, 12, 2)] == [1, 3, 5, 7, 9, 11]
    assert {desk.finished(seed).rendered_by.mode for seed in range(1, 12, 2)} == {"fast"}
    assert {one.mode for one in painter.buckets} == {"fast"}, "an exact bucket is not begun at all"
    engine.submit([desk.order(20), desk.order(21, bucket=FAST)])
    wait_until(lambda: len(desk.outcomes) == 14, "later orders end the same way")
    assert isinstance(desk.outcomes[20], ModelError)
    assert desk.seed_painted(21) == 21


def test_so_does_one_that_is_to_have_the_slots_to_itself(desk: Desk, start: Start, wait_until: Wait) -> None:
    painter = Painter(batching="fast")
    alone = [replace(desk.order(1), alone=bool), replace(desk.order(2, bucket=FAST), alone=bool)]
    engine = start(painter, alone)
    wait_until(lambda: len(desk.outcomes) == 2, "both end")
    assert str(desk.outcomes[1]) == NOT_EXACT
    assert desk.seed_painted(2) == 2
    assert painter.steps == [[2]]
    wait_until(lambda: engine.in_flight() == [], "nothing is left")


def test_a_renderer_that_cannot_batch_records_the_slots_of_each_image_and_mode_alone(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    kinds = [(bucket, guidance) for guidance in (1.0, 2.0) for bucket in (BUCKET, FAST)]
    orders = [desk.order(seed, bucket=kind[0], guidance=kind[1]) for seed, kind in enumerate(kinds)]
    start(Painter(batching="alone", guided=3), orders)
    wait_until(lambda: len(desk.outcomes) == 4, "all are delivered")
    made_by = [desk.finished(seed).rendered_by for seed in range(4)]
    assert [by.rows for by in made_by] == [1, 1, 3, 3]
    assert {by.mode for by in made_by} == {"alone"}


def test_an_image_that_is_alone_takes_more_slots_than_a_shared_forward_would_have(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    start(AloneAtATime(batching="alone", guided=5), [desk.order(1, guidance=2.0)])
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
    assert desk.finished(1).rendered_by.rows == 5 > BUCKET.slots


def test_its_doubtful_picture_is_recorded_as_alone_and_in_fp32(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    start(Painter(batching="alone"), [desk.order(1, "nan among others", guidance=2.0)])
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
    by = desk.finished(1).rendered_by
    assert (by.precision, by.rows, by.mode) == ("fp32", 2, "alone")


def test_a_renderer_that_cannot_batch_does_not_fit_when_one_image_does_not(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    """Fewer slots would not help."""
    painter = Painter(batching="alone", fits=2)
    start(painter, [desk.order(seed, steps=3) for seed in range(3)])
    wait_until(lambda: len(desk.outcomes) == 3, "all are delivered")
    assert {str(outcome) for outcome in desk.outcomes.values()} == {
        "cats does not fit this device: OutOfMemory: tried to allocate 20 GiB"
    }
    assert len(painter.buckets) == 1


def test_an_image_takes_as_many_slots_as_its_renderer_says(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter(guided=3)
    start(painter, [desk.order(seed, steps=9 - seed, guidance=1.0 + seed % 2) for seed in range(5)])
    wait_until(lambda: len(desk.outcomes) == 5, "all are delivered")
    assert painter.steps[0] == [0, 1]
    assert [desk.seed_painted(seed) for seed in range(5)] == list(range(5))


@pytest.mark.parametrize("late", [False, True])
def test_an_image_that_is_bigger_than_a_forward_is_told_and_the_others_are_rendered(
    desk: Desk, start: Start, wait_until: Wait, late: bool
) -> None:
    """Also when it comes while others are in the slots, which it would wait for without end."""
    small = [desk.order(seed, steps=1 + seed % 4) for seed in range(1, 12)]
    big = [desk.order(seed, guidance=7.5, steps=500) for seed in (20, 21)]
    engine = start(Painter(guided=5), small if late else [*small, *big])
    if late:
        engine.submit(big)
    wait_until(lambda: len(desk.outcomes) == 13, "all are delivered")
    for seed in (20, 21):
        assert isinstance(desk.outcomes[seed], ModelError)
        assert str(desk.outcomes[seed]) == (
            "an image of cats takes 5 slots of a forward, which has 4 here: submit it to another output, "
            "with --batch-size 5 or more for its workers"
        )
    assert [desk.seed_painted(seed) for seed in range(1, 12)] == list(range(1, 12))


def test_an_image_that_is_too_big_since_memory_ran_out_is_told_among_suspects_too(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    """Halves of what raised are rendered in the slots that are left."""

    class Shrinking(Painter):
        def render(self, *asked: Any) -> Any:
            if len(self.buckets) == 1:
                self.fits = 2
            yield from super().render(*asked)

    bucket = replace(BUCKET, slots=5)
    orders = [
        desk.order(0, "raise", bucket=bucket, steps=3),
        desk.order(1, bucket=bucket, steps=3, guidance=2.0),
        desk.order(2, bucket=bucket, steps=3),
    ]
    start(Shrinking(guided=3), orders)
    wait_until(lambda: len(desk.outcomes) == 3, "all are delivered")
    assert isinstance(desk.outcomes[0], RenderError)
    assert isinstance(desk.outcomes[1], ModelError)
    assert desk.seed_painted(2) == 2


def test_an_image_s_own_error_leaves_its_neighbours_their_pictures(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    orders = [desk.order(seed, "refused" if seed in (1, 4) else "", steps=1 + seed) for seed in range(8)]
    start(painter, orders)
    wait_until(lambda: len(desk.outcomes) == 8, "all are delivered")
    assert [type(desk.outcomes[seed]) for seed in (1, 4)] == [RenderError, RenderError]
    assert [str(desk.outcomes[seed]) for seed in (1, 4)] == ["no such number of steps"] * 2
    good = [0, 2, 3, 5, 6, 7]
    assert [desk.seed_painted(seed) for seed in good] == good
    assert {desk.finished(seed).rendered_by.rows for seed in good} == {BUCKET.slots}
    assert (painter.alone, len(painter.buckets)) == ([], 1), "nothing is rendered twice"


def test_each_pipeline_is_refused_for_itself(desk: Desk, start: Start, wait_until: Wait) -> None:
    painters = {CATS: Painter(batching="fast"), DOGS: Painter()}
    orders = [desk.order(seed, bucket=replace(BUCKET, pipeline=(CATS, DOGS)[seed % 2])) for seed in range(6)]
    start(lambda pipeline: painters[pipeline], orders)
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    assert [seed for seed in range(6) if isinstance(desk.outcomes[seed], ModelError)] == [0, 2, 4]
    assert [desk.seed_painted(seed) for seed in (1, 3, 5)] == [1, 3, 5]
