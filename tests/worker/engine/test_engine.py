"""The engine keeps the slots full, the longest first; memory, models and questions each have their turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jobs.errors import LeaseLost, ModelError, SettingsError
from tests.waiting import LONGEST
from tests.worker.engine.desk import BUCKET, CATS, DOGS, Desk, Painter, Start, Wait
from worker.engine import request_queue as orders_module
from worker.engine.engine import Engine
from worker.engine.renderer import (
    OutOfMemory,
    Pipeline,
    Renderer,
)
from worker.engine.request_queue import Order

ROOT = Path(__file__).parents[3]


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
    assert painter.entered.wait(LONGEST)
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
    assert painter.entered.wait(LONGEST)
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
    assert asked_idle.result(LONGEST) == ("cpu", "engine")
    painter.gate = gate
    engine.submit([desk.order(1, steps=3)])
    assert painter.entered.wait(LONGEST)
    asked_busy = engine.ask(CATS, lambda _renderer: len(painter.steps))
    assert not asked_busy.done()
    gate.set()
    assert asked_busy.result(LONGEST) == 1
    wait_until(lambda: 1 in desk.outcomes, "the image is delivered")


def test_what_a_question_raises_reaches_the_one_that_asked(start: Start) -> None:
    engine = start(Painter())

    def no_room(_renderer: Renderer) -> None:
        raise OutOfMemory("tried to allocate 20 GiB")

    def broken(_renderer: Renderer) -> None:
        raise KeyError("x")

    with pytest.raises(ModelError, match="cats does not fit this device: OutOfMemory: tried to allocate"):
        engine.ask(CATS, no_room).result(LONGEST)
    with pytest.raises(KeyError):
        engine.ask(CATS, broken).result(LONGEST)
    assert engine.ask(CATS, lambda renderer: renderer.precision).result(LONGEST) == "bf16"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("cats: not there"), "cats: not there"),
        (SettingsError("device = 'cuda': no GPU here"), "device = 'cuda': no GPU here"),
        (OSError("disk\nfull"), "cats cannot be loaded: OSError: disk"),
    ],
    ids=["no model", "no device", "anything else"],
)
def test_a_pipeline_that_cannot_be_loaded_refuses_orders_and_questions_and_others_go_on(
    desk: Desk, start: Start, wait_until: Wait, error: Exception, message: str
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
        answer.result(LONGEST)
    assert str(caught.value) == message
    wait_until(lambda: len(desk.outcomes) == 9, "all are delivered")
    for seed in range(0, 9, 2):
        refusal = desk.outcomes[seed]
        assert isinstance(refusal, ModelError)
        assert str(refusal) == message
    assert [desk.seed_painted(seed) for seed in range(1, 9, 2)] == [1, 3, 5, 7]
    engine.submit([order(20), order(21)])
    wait_until(lambda: len(desk.outcomes) == 11, "later orders end the same way")
    assert isinstance(desk.outcomes[20], ModelError)
    assert desk.seed_painted(21) == 21


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


def test_the_one_that_was_answered_may_order_before_another_model_is_loaded(
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
    assert answer.result(LONGEST) == "cpu"
    assert engine.ask(CATS, lambda renderer: renderer.measure_slots(8, 8)).result(LONGEST) == 4
    time.sleep(0.2)  # what a call to the ledger takes
    engine.submit([desk.order(2)])
    wait_until(lambda: len(desk.outcomes) == 2, "both are delivered")
    assert loads in ([CATS, DOGS], [DOGS, CATS])


def test_a_question_that_nobody_waits_for_loads_nothing(desk: Desk, start: Start, wait_until: Wait) -> None:
    loads: list[Pipeline] = []
    gate = threading.Event()
    painter = Painter(gate)
    engine = start(lambda pipeline: loads.append(pipeline) or painter, [desk.order(1)])
    assert painter.entered.wait(LONGEST)
    mine, others = engine.ask(CATS, lambda _r: 1), engine.ask(DOGS, lambda _r: 1)
    assert mine.cancel()
    assert others.cancel()
    gate.set()
    wait_until(lambda: 1 in desk.outcomes, "it is delivered")
    engine.submit([desk.order(2)])
    wait_until(lambda: 2 in desk.outcomes, "the engine goes on")
    assert loads == [CATS]


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
    assert painter.entered.wait(LONGEST)
    engine.withdraw(orders[:2])
    gate.set()
    wait_until(lambda: {2, 3} <= set(desk.outcomes), "the others are delivered")
    assert all(set(slots) <= {2, 3} for slots in painter.steps[2:])


def test_an_order_that_is_to_be_alone_gets_all_slots_once_they_are_empty(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate, found = threading.Event(), []
    painter = Painter(gate)
    engine = start(painter, [desk.order(seed, steps=seed) for seed in (1, 2, 3)])
    assert painter.entered.wait(LONGEST)
    for seed in (7, 8):
        began = partial(lambda seed: found.append((seed, len(painter.steps), desk.deliveries.copy())), seed)
        engine.submit([replace(desk.order(seed), alone=began)])
    engine.submit([desk.order(9)])
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 6, "all are delivered")
    assert painter.steps == [[3, 2, 1], [3, 2], [3], [7], [8], [9]]
    assert [(seed, steps) for seed, steps, _ in found] == [(7, 3), (8, 4)]
    assert desk.finished(7).rendered_by.rows == BUCKET.slots


def test_what_its_beginning_raises_is_an_order_s_end(desk: Desk, start: Start, wait_until: Wait) -> None:
    painter = Painter()

    def begin() -> None:
        raise LeaseLost("another attempt's")

    start(painter, [replace(desk.order(1), alone=begin), desk.order(2)])
    wait_until(lambda: len(desk.outcomes) == 2, "both end")
    assert isinstance(desk.outcomes[1], LeaseLost)
    assert painter.steps == [[2]]


def test_an_order_to_be_alone_can_be_withdrawn_and_refused(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate)
    engine = start(painter, [desk.order(1)])
    assert painter.entered.wait(LONGEST)
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
import time
from jobs.request import ImageRequest
from worker.engine.engine import Engine
from worker.engine.request_queue import Order
from worker.engine.renderer import BrokenDevice, Bucket, Pipeline
from worker.renderers.instant import InstantRenderer

pipeline = Pipeline("m", "1", "auto")
request = ImageRequest(prompt="", seed=0, model="m", revision="1")
order = Order(Bucket(pipeline, 8, 8, slots=4), request, None, print)
"""
    return subprocess.run(
        [sys.executable, "-c", begin + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


def test_a_broken_device_ends_the_process() -> None:
    """A worker without its engine would keep its leases alive and render nothing."""
    done = ended("""
class Broken(InstantRenderer):
    def render(self, bucket, source, stop):
        raise BrokenDevice("an illegal memory access was encountered")

engine = Engine(lambda pipeline: Broken(0.0))
engine.submit([order])
engine.start()
threading.Event().wait(120.0)
""")
    assert done.returncode == 70
    assert "the engine's thread died" in done.stderr
    assert "BrokenDevice: an illegal memory access" in done.stderr


def test_a_model_that_fails_to_load_after_the_end_does_not_end_it_another_way() -> None:
    done = ended("""
loading, closed = threading.Event(), threading.Event()

def load(pipeline):
    loading.set()
    closed.wait(120.0)
    raise OSError("the mount went away")

engine = Engine(load)
engine.submit([order])
engine.start()
loading.wait(120.0)
engine.close()
closed.set()
while engine.running:
    time.sleep(0.01)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
