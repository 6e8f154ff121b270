"""Finished pictures wait in a bounded queue for the writers; each is delivered once, and none is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from tests.waiting import LONGEST
from tests.worker.engine.desk import Desk, Painter, Start, Wait, slow_orders
from worker.engine.engine import Engine


def test_withdrawn_orders_are_not_rendered_and_those_in_the_slots_are_delivered(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    gate = threading.Event()
    painter = Painter(gate)
    orders = [desk.order(seed) for seed in range(10)]
    engine = start(painter, orders)
    assert painter.entered.wait(LONGEST)
    engine.submit([desk.order(50)])
    assert engine.withdraw(orders) == 6
    assert engine.withdraw(orders) == 0
    gate.set()
    wait_until(lambda: len(desk.outcomes) == 5, "what was in the slots, and the order that stays")
    assert sorted(desk.deliveries) == [0, 1, 2, 3, 50]
    assert painter.steps == [[0, 1, 2, 3], [50]]


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
    engine.flush(timeout=LONGEST)
    assert sorted(delivered) == list(range(40))


def test_an_engine_that_waits_for_its_writers_hears_that_it_is_stopped(
    start: Start, wait_until: Wait
) -> None:
    gate, painter = threading.Event(), Painter()
    engine = start(painter, slow_orders(gate, [], 20))
    try:
        wait_until(lambda: len(painter.steps) == 3, "a third forward finds the writers' line full")
        engine.stop()
        wait_until(lambda: not engine.running, "the engine ends")
    finally:
        gate.set()


def test_stopped_in_a_forward_it_delivers_nothing_of_it_and_nothing_twice(
    desk: Desk, start: Start, wait_until: Wait
) -> None:
    painter = Painter()
    engine = start(painter, [desk.order(seed) for seed in range(4)])
    wait_until(lambda: len(desk.outcomes) == 4, "the first forward is delivered")
    painter.gate = threading.Event()
    painter.entered.clear()
    engine.submit([desk.order(seed) for seed in range(4, 12)])
    assert painter.entered.wait(LONGEST)
    engine.close()
    assert len(painter.steps) == 2
    assert sorted(desk.deliveries) == [0, 1, 2, 3]


def test_what_is_in_the_slots_or_unwritten_is_in_flight(desk: Desk, start: Start, wait_until: Wait) -> None:
    gate, entered = threading.Event(), []
    painter, may_write = Painter(gate), threading.Event()
    order = desk.order(1)
    slow = replace(order, deliver=lambda outcome: (may_write.wait(LONGEST), order.deliver(outcome)))
    engine = Engine(lambda _pipeline: painter, on_taken=lambda: entered.append(engine.in_flight()))
    try:
        engine.submit([slow])
        assert engine.in_flight() == []
        engine.start()
        assert painter.entered.wait(LONGEST)
        assert entered == [[slow]]
        gate.set()
        wait_until(lambda: engine.images == 1, "it is painted")
        assert engine.in_flight() == [slow]
        may_write.set()
        wait_until(lambda: engine.in_flight() == [], "it is written")
    finally:
        may_write.set()
        engine.close()


def test_an_order_is_alone_only_when_all_before_it_is_written(desk: Desk, wait_until: Wait) -> None:
    may_write, began = threading.Event(), threading.Event()
    first = desk.order(1)
    slow = replace(first, deliver=lambda outcome: (may_write.wait(LONGEST), first.deliver(outcome)))
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
    """A worker that dies of what comes next would have it charged."""
    painter, may_write = Painter(), threading.Event()
    alone = desk.order(1)
    slow = replace(
        alone, deliver=lambda outcome: (may_write.wait(LONGEST), alone.deliver(outcome)), alone=lambda: None
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
