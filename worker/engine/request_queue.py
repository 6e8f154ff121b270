"""What the engine has to do: orders of images by bucket, questions to a pipeline, and which goes next."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

from jobs.adapters import NO_ADAPTERS
from jobs.errors import ImagemillError
from jobs.inputs.inputs import Inputs
from jobs.request import ImageRequest
from worker.engine.admission_queue import AdmissionQueue
from worker.engine.renderer import Bucket, Picture, Pipeline, RenderedBy, Renderer

Answer = TypeVar("Answer")

ANSWERED = 2.0
"""Seconds that a pipeline stays loaded after an answer, for the orders that follow from it."""
PATIENCE = 30.0
"""Seconds that work of another bucket waits before the one in the slots takes no more in; and seconds that a
bucket takes in at least once it has its turn, or two that load for longer than that would do nothing else."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture, what rendered it, and why it is doubted (None: it is not)."""

    picture: Picture
    rendered_by: RenderedBy
    flagged: str | None


Outcome = Finished | ImagemillError
"""An order ends in a picture; in RenderError, its own failure; in ModelError, that of its pipeline; or in
what its `alone` raised."""


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """One image to render; `deliver` is called once, on a writer's thread, and does not raise."""

    bucket: Bucket
    request: ImageRequest
    inputs: Inputs
    deliver: Callable[[Outcome], None]
    context: Mapping[str, Any] = field(default_factory=dict)
    """What log lines about it say: job, shard, image_id."""
    alone: Callable[[], None] | None = None
    """Called on the engine's thread right before the order gets all slots to itself; None: it shares them."""

    def begin_alone(self) -> None:
        """Calls `alone`; raises what that raises."""
        if self.alone is not None:
            self.alone()


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question that only a pipeline's renderer can answer."""

    pipeline: Pipeline
    ask: Callable[[Renderer], Any]
    answer: Future[Any]
    came: float


class RequestQueue:
    """Orders and questions that wait; task threads add, the engine's thread takes."""

    def __init__(self) -> None:
        self._came: dict[Bucket, float] = {}
        """Since when something has waited for a bucket, the oldest first."""
        self._arrived: dict[Bucket, list[Order]] = {}
        self._waiting: dict[Bucket, AdmissionQueue[Order]] = {}
        self._alone: list[tuple[float, Order]] = []
        """Orders that share no slots, and when each came."""
        self._questions: list[Question] = []
        self._turn_began = self._answered = -math.inf
        self._carried = NO_ADAPTERS
        """What the model carries since the last turn."""
        self._changed = threading.Condition()

    def submit(self, orders: Sequence[Order]) -> None:
        """Adds orders to those that wait."""
        with self._changed:
            for order in orders:
                if order.alone is not None:
                    self._alone.append((time.monotonic(), order))
                    continue
                self._came.setdefault(order.bucket, time.monotonic())
                self._arrived.setdefault(order.bucket, []).append(order)
            self._changed.notify()

    def ask(self, pipeline: Pipeline, question: Callable[[Renderer], Answer]) -> Future[Answer]:
        """Puts a question in line; its answer may be an error."""
        answer: Future[Answer] = Future()
        with self._changed:
            self._questions.append(Question(pipeline, question, answer, time.monotonic()))
            self._changed.notify()
        return answer

    def withdraw(self, orders: Sequence[Order]) -> int:
        """Takes back the orders that were not taken yet; returns how many."""
        unwanted = set(map(id, orders))
        with self._changed:
            staying = [(came, order) for came, order in self._alone if id(order) not in unwanted]
            withdrawn = len(self._alone) - len(staying)
            self._alone = staying
            for bucket, arrived in self._arrived.items():
                kept = [order for order in arrived if id(order) not in unwanted]
                withdrawn += len(arrived) - len(kept)
                self._arrived[bucket] = kept
            for waiting in self._waiting.values():
                withdrawn += len(waiting.remove(lambda order: id(order) in unwanted))
            self._forget_empty()
        return withdrawn

    def wake(self) -> None:
        """Makes `next_pipeline` look at its `stop` again."""
        with self._changed:
            self._changed.notify()

    def next_pipeline(self, loaded: Pipeline | None, stop: Callable[[], bool]) -> Pipeline | None:
        """Waits for work; `loaded` while it has some and no other has waited too long. None: stopped.

        A caller that was just answered is about to order: until then no other pipeline is loaded.
        """
        with self._changed:
            while not stop():
                self._questions = [
                    question for question in self._questions if not question.answer.cancelled()
                ]
                by_age = sorted(
                    [(came, bucket.pipeline) for bucket, came in self._came.items()]
                    + [(came, order.bucket.pipeline) for came, order in self._alone]
                    + [(question.came, question.pipeline) for question in self._questions],
                    key=itemgetter(0),
                )
                now = time.monotonic()
                about_to_order = self._answered + ANSWERED - now
                if any(pipeline == loaded for _came, pipeline in by_age):
                    if about_to_order > 0 or by_age[0][0] > now - PATIENCE:
                        return loaded
                elif by_age and loaded is not None and about_to_order > 0:
                    self._changed.wait(about_to_order)
                    continue
                if by_age:
                    return by_age[0][1]
                self._changed.wait()
        return None

    def next_bucket(self, pipeline: Pipeline) -> Bucket | None:
        """The bucket of a pipeline that has waited longest; its turn begins.

        Unless that has waited too long, one with the adapters of the last turn goes before it: a switch of
        adapters takes time.
        """
        with self._changed:
            self._turn_began = time.monotonic()
            waiting = [bucket for bucket in self._came if bucket.pipeline == pipeline]
            if not waiting:
                return None
            chosen = waiting[0]
            if self._came[chosen] > self._turn_began - PATIENCE:
                alike = (bucket for bucket in waiting if bucket.adapters == self._carried)
                chosen = next(alike, chosen)
            self._carried = chosen.adapters
            return chosen

    def next_alone(self, pipeline: Pipeline) -> Order | None:
        """The order of a pipeline that is to have all slots to itself and came first, out of the line."""
        with self._changed:
            for place, (_came, order) in enumerate(self._alone):
                if order.bucket.pipeline == pipeline:
                    del self._alone[place]
                    return order
        return None

    def questions(self, pipeline: Pipeline) -> list[Question]:
        """Every question to a pipeline, taken out of the line to be answered."""
        with self._changed:
            if taken := self._take_questions(pipeline):
                self._answered = time.monotonic()
        return taken

    def remove(self, bucket: Bucket, unwanted: Callable[[Order], bool]) -> list[Order]:
        """Takes every unwanted order of a bucket out of the line."""
        with self._changed:
            arrived, waiting = self._arrived.get(bucket, []), self._waiting.get(bucket)
            removed = [order for order in arrived if unwanted(order)]
            if removed:
                self._arrived[bucket] = [order for order in arrived if not unwanted(order)]
            if waiting is not None:
                removed += waiting.remove(unwanted)
            self._forget_empty()
        return removed

    def take(self, bucket: Bucket, free_slots: int, renderer: Renderer, now: int) -> list[Order]:
        """The orders that enter a bucket's slots now: the longest first, none once others waited too long.

        renderer: knows how many slots an order takes, and for how long. now: forwards that were run so far.
        """
        with self._changed:
            arrived = self._arrived.get(bucket, []).copy()
        # Compiles schedulers, so not under the lock; meanwhile orders may come and be withdrawn.
        asked = [(order, order.request) for order in arrived]
        costs = {order: (renderer.slots(request), renderer.forwards(request)) for order, request in asked}
        with self._changed:
            waiting = self._waiting.setdefault(bucket, AdmissionQueue())
            arrived = self._arrived.pop(bucket, [])
            for order in arrived:
                if order in costs:
                    slots, forwards = costs[order]
                    waiting.add(order, slots=slots, forwards=forwards, now=now)
            self._arrived[bucket] = [order for order in arrived if order not in costs]
            if not self._others_waited_too_long(bucket):
                taken = waiting.take(free_slots)
            else:
                taken = []
                if bucket in self._came:  # it had its turn
                    del self._came[bucket]
                    self._came[bucket] = time.monotonic()
            self._forget_empty()
        return taken

    def upcoming(self, bucket: Bucket, count: int) -> list[Order]:
        """About the next `count` orders of a bucket, still in line."""
        with self._changed:
            waiting = self._waiting.get(bucket)
            return [] if waiting is None else waiting.upcoming(count)

    def empty(self, pipeline: Pipeline) -> tuple[list[Order], list[Question]]:
        """Takes out all that waits for a pipeline, to be refused; no orders are expected any more."""
        with self._changed:
            buckets = [bucket for bucket in self._came if bucket.pipeline == pipeline]
            orders = [order for bucket in buckets for order in self._arrived.pop(bucket, [])]
            orders += [order for _came, order in self._alone if order.bucket.pipeline == pipeline]
            self._alone = [(came, order) for came, order in self._alone if order.bucket.pipeline != pipeline]
            for bucket in buckets:
                orders += self._waiting.pop(bucket, AdmissionQueue()).remove(lambda _order: True)
                del self._came[bucket]
            return orders, self._take_questions(pipeline)

    def _take_questions(self, pipeline: Pipeline) -> list[Question]:
        taken = [question for question in self._questions if question.pipeline == pipeline]
        self._questions = [question for question in self._questions if question.pipeline != pipeline]
        return taken

    def _others_waited_too_long(self, bucket: Bucket) -> bool:
        # An order that waits for all slots has held up its shard for three leases already.
        if any(order.bucket.pipeline == bucket.pipeline for _came, order in self._alone):
            return True
        others = [came for other, came in self._came.items() if other != bucket]
        others += [came for came, _order in self._alone]
        others += [question.came for question in self._questions if question.pipeline != bucket.pipeline]
        return max(self._turn_began, min(others, default=math.inf)) < time.monotonic() - PATIENCE

    def _forget_empty(self) -> None:
        for bucket in list(self._came):
            if not self._arrived.get(bucket) and not self._waiting.get(bucket):
                self._arrived.pop(bucket, None)
                self._waiting.pop(bucket, None)
                del self._came[bucket]
