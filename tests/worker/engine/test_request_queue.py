"""Which order goes into the slots next, and whose turn it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from jobs.adapters import Adapters
from jobs.request import ImageRequest
from tests.waiting import LONGEST
from tests.worker.engine.desk import Painter
from worker.engine import request_queue as orders_module
from worker.engine.renderer import Bucket, Pipeline
from worker.engine.request_queue import Order, RequestQueue

CATS, DOGS = Pipeline("cats", "1", "fp32"), Pipeline("dogs", "1", "fp32")
SMALL, LARGE = Bucket(CATS, 64, 64, slots=4), Bucket(CATS, 128, 128, slots=4)
DOG = Bucket(DOGS, 64, 64, slots=4)
INK, GRAIN = '[{"name":"ink","sha256":"1","scale":1.0}]', '[{"name":"grain","sha256":"2","scale":1.0}]'

Wait = Callable[..., None]


def order(seed: int, bucket: Bucket = SMALL, steps: int = 10, guidance: float = 1.0) -> Order:
    request = ImageRequest(
        prompt="", seed=seed, model="m", revision="1", num_inference_steps=steps, guidance_scale=guidance
    )
    return Order(bucket, request, None, lambda _outcome: None)


class Lengths(Painter):
    """A renderer whose images are as long as a function says."""

    def __init__(self, forwards: Callable[[ImageRequest], int]) -> None:
        super().__init__()
        self._forwards = forwards

    def forwards(self, request: ImageRequest) -> int:
        return self._forwards(request)


def take(orders: RequestQueue, free_slots: int, bucket: Bucket = SMALL, now: int = 0) -> list[int]:
    return [order.request.seed for order in orders.take(bucket, free_slots, Painter(), now)]


def never() -> bool:
    return False


@pytest.fixture
def orders() -> RequestQueue:
    return RequestQueue()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(orders_module, "PATIENCE", 0.2)
    return 0.2


def test_the_longest_enter_first_as_far_as_slots_go(orders: RequestQueue) -> None:
    orders.submit([order(1, steps=5), order(2, steps=50, guidance=7.5), order(3, steps=20), order(4, LARGE)])
    assert take(orders, 3) == [2, 3]
    assert [one.request.seed for one in orders.upcoming(SMALL, 9)] == [1]
    orders.submit([order(5, steps=30)])
    assert take(orders, 4) == [5, 1]
    assert take(orders, 4) == []
    assert orders.upcoming(SMALL, 9) == []
    assert take(orders, 4, LARGE) == [4]


def test_time_in_line_counts_as_length(orders: RequestQueue) -> None:
    orders.submit([order(1, steps=10)])
    assert take(orders, 0, now=100) == []
    orders.submit([order(2, steps=19)])
    assert take(orders, 0, now=108) == []
    orders.submit([order(3, steps=19)])
    assert take(orders, 3, now=112) == [2, 1, 3]


def test_what_was_not_taken_can_be_withdrawn_wherever_it_waits(orders: RequestQueue) -> None:
    shard = [order(seed, steps=90 - seed) for seed in range(5)]
    others = [order(7, steps=1), order(8, LARGE)]
    orders.submit(shard)
    assert take(orders, 2) == [0, 1]
    just_arrived = order(6, LARGE)
    orders.submit([*others, just_arrived])
    assert orders.withdraw([*shard, just_arrived]) == 4
    assert orders.withdraw(shard) == 0
    assert take(orders, 9) == [7]
    assert take(orders, 9, LARGE) == [8]
    orders.submit(shard[:1])
    assert orders.withdraw(shard) == 1
    assert orders.next_bucket(CATS) is None


def test_what_is_removed_from_one_bucket_is_gone_wherever_it_waits(orders: RequestQueue) -> None:
    orders.submit([*(order(seed, steps=90 - seed) for seed in range(4)), order(9, LARGE)])
    assert take(orders, 0) == []
    orders.submit([order(seed) for seed in range(4, 8)])
    removed = orders.remove(SMALL, lambda one: one.request.seed % 2 == 1)
    assert sorted(one.request.seed for one in removed) == [1, 3, 5, 7]
    assert take(orders, 9) == [0, 2, 4, 6]
    assert [one.request.seed for one in orders.remove(LARGE, lambda _one: True)] == [9]
    assert orders.remove(LARGE, lambda _one: True) == []
    assert orders.next_bucket(CATS) is None


def test_orders_may_come_and_be_withdrawn_while_schedulers_are_compiled(orders: RequestQueue) -> None:
    first, second, late = order(1, steps=30), order(2, steps=20), order(3, steps=10)
    orders.submit([first, second])
    withdrawn: list[int] = []

    def compile_slowly(request: ImageRequest) -> int:
        if not withdrawn:
            withdrawn.append(orders.withdraw([second]))
            orders.submit([late])
        return request.num_inference_steps

    assert [one.request.seed for one in orders.take(SMALL, 0, Lengths(compile_slowly), 0)] == []
    assert withdrawn == [1]
    assert orders.next_bucket(CATS) == SMALL
    assert take(orders, 9) == [1, 3]


def test_a_bucket_whose_orders_are_all_withdrawn_meanwhile_is_still_found_later(orders: RequestQueue) -> None:
    first = order(1)
    orders.submit([first])
    assert orders.take(SMALL, 9, Lengths(lambda _request: orders.withdraw([first])), 0) == []
    assert orders.next_bucket(CATS) is None
    orders.submit([first])
    assert orders.next_bucket(CATS) == SMALL
    assert take(orders, 9) == [1]


def test_what_raises_about_an_order_loses_none(orders: RequestQueue) -> None:
    def broken(_request: ImageRequest) -> int:
        raise IndexError("index 1000 is out of bounds")

    orders.submit([order(1), order(2)])
    with pytest.raises(IndexError):
        orders.take(SMALL, 9, Lengths(broken), 0)
    assert take(orders, 9) == [1, 2]


def test_nothing_enters_once_others_waited_too_long_and_they_get_their_turn(
    orders: RequestQueue, short_patience: float, wait_until: Wait
) -> None:
    orders.submit([order(seed) for seed in range(100)])
    assert orders.next_bucket(CATS) == SMALL
    assert take(orders, 1) == [0]
    orders.submit([order(200, LARGE)])
    assert take(orders, 1) == [1]
    wait_until(lambda: take(orders, 1) == [], "the slots are left to drain")
    assert take(orders, 4) == []
    assert orders.next_bucket(CATS) == LARGE
    assert take(orders, 4, LARGE) == [200]
    assert orders.next_bucket(CATS) == SMALL
    assert len(take(orders, 4)) == 4


def test_a_bucket_with_the_adapters_that_are_on_goes_first(orders: RequestQueue) -> None:
    small, large = (replace(bucket, adapters=Adapters(INK)) for bucket in (SMALL, LARGE))
    other = replace(SMALL, adapters=Adapters(GRAIN))
    for seed, bucket in enumerate((small, other, large)):
        orders.submit([order(seed, bucket)])
    turns = []
    while (bucket := orders.next_bucket(CATS)) is not None:
        turns.append(bucket)
        assert len(take(orders, 4, bucket)) == 1
    assert turns == [small, large, other]


def test_a_bucket_with_other_adapters_goes_first_once_it_has_waited_too_long(
    orders: RequestQueue, short_patience: float
) -> None:
    carried, other = (replace(SMALL, adapters=Adapters(loras)) for loras in (INK, GRAIN))
    orders.submit([order(1, carried), order(2, carried), order(3, other)])
    assert orders.next_bucket(CATS) == carried
    assert take(orders, 1, carried) == [1]
    time.sleep(2 * short_patience)
    assert take(orders, 1, carried) == []
    assert orders.next_bucket(CATS) == other
    assert take(orders, 1, other) == [3]
    assert orders.next_bucket(CATS) == carried


def test_a_turn_is_as_long_as_patience_however_long_others_wait(
    orders: RequestQueue, short_patience: float
) -> None:
    """Two pipelines that load longer than that would else take turns at loading and render nothing."""
    orders.submit([order(1), order(2), order(3, DOG)])
    time.sleep(2 * short_patience)  # while a model loads
    assert orders.next_bucket(CATS) == SMALL
    assert take(orders, 1) == [1]
    time.sleep(2 * short_patience)
    assert take(orders, 1) == []


def test_a_question_to_another_pipeline_closes_the_slots_too(
    orders: RequestQueue, short_patience: float, wait_until: Wait
) -> None:
    orders.submit([order(seed) for seed in range(1000)])
    orders.next_bucket(CATS)
    answer = orders.ask(CATS, lambda renderer: renderer.device)
    time.sleep(2 * short_patience)
    assert take(orders, 1) == [0], "its own pipeline's question is answered between forwards"
    orders.ask(DOGS, lambda renderer: renderer.device)
    wait_until(lambda: take(orders, 1) == [], "the slots are left to drain")
    assert not answer.done()


def test_a_pipeline_goes_on_while_it_has_work_until_others_waited_too_long(
    orders: RequestQueue, short_patience: float, wait_until: Wait
) -> None:
    orders.submit([order(1, DOG), order(2)])
    assert orders.next_pipeline(None, never) == DOGS
    assert orders.next_pipeline(CATS, never) == CATS
    wait_until(lambda: orders.next_pipeline(CATS, never) == DOGS, "the dogs waited too long")
    assert orders.next_bucket(DOGS) == DOG
    assert take(orders, 4, DOG) == [1]
    assert orders.next_pipeline(DOGS, never) == CATS


def test_a_question_alone_is_work(orders: RequestQueue) -> None:
    orders.ask(DOGS, lambda renderer: renderer.device)
    assert orders.next_pipeline(CATS, never) == DOGS
    assert orders.next_bucket(DOGS) is None
    assert orders.questions(CATS) == []
    assert [question.pipeline for question in orders.questions(DOGS)] == [DOGS]
    assert orders.questions(DOGS) == []


def test_a_thread_that_waits_for_work_hears_of_it_and_of_the_end(
    orders: RequestQueue, wait_until: Wait
) -> None:
    heard: list[Pipeline | None] = []
    stopped = threading.Event()

    def listen() -> None:
        while (pipeline := orders.next_pipeline(None, stopped.is_set)) is not None:
            heard.append(pipeline)
            take(orders, 9, DOG)
        heard.append(None)

    thread = threading.Thread(target=listen)
    thread.start()
    orders.submit([order(1, DOG)])
    wait_until(lambda: heard == [DOGS], "the order is heard of")
    stopped.set()
    orders.wake()
    thread.join(LONGEST)
    assert heard == [DOGS, None]


def test_a_pipeline_can_be_emptied_of_all_that_waits_for_it(orders: RequestQueue) -> None:
    orders.submit([order(seed) for seed in range(3)])
    assert take(orders, 1) == [0]
    orders.submit([order(3), order(4, LARGE), order(5, DOG)])
    orders.ask(CATS, lambda renderer: renderer.device)
    orders.ask(DOGS, lambda renderer: renderer.device)
    left, questions = orders.empty(CATS)
    assert sorted(one.request.seed for one in left) == [1, 2, 3, 4]
    assert [question.pipeline for question in questions] == [CATS]
    assert orders.next_bucket(CATS) is None
    assert orders.next_pipeline(CATS, never) == DOGS
    assert take(orders, 4, DOG) == [5]
    assert len(orders.questions(DOGS)) == 1


def test_only_who_was_answered_keeps_the_loaded_pipeline_from_others(
    orders: RequestQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.request_queue.ANSWERED", 0.5)

    def seconds_until_the_dogs(loaded: Pipeline | None) -> float:
        began = time.monotonic()
        assert orders.next_pipeline(loaded, never) == DOGS
        return time.monotonic() - began

    orders.submit([order(1, DOG)])
    orders.ask(CATS, lambda renderer: renderer.device)
    orders.empty(CATS)
    assert seconds_until_the_dogs(CATS) < 0.4, "who was refused orders nothing"
    orders.ask(CATS, lambda renderer: renderer.device)
    assert len(orders.questions(CATS)) == 1
    assert seconds_until_the_dogs(None) < 0.4, "nothing is loaded that could be kept"
    assert seconds_until_the_dogs(CATS) > 0.3
