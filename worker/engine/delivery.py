"""Finished orders on their way out: a pool of writers, and the bounded queue before it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from worker.engine.renderer import Stopped
from worker.engine.request_queue import Finished, Order, Outcome
from worker.logs import bound


class Delivery:
    """Hands each order its outcome on a writer's thread, so that writing overlaps with sampling.

    At most twice as many orders as there are slots wait or are written; the engine then waits for them.
    """

    def __init__(self, writers: int, stop: Callable[[], bool]) -> None:
        """writers: threads. stop: whether the engine has to stop, which ends its waiting."""
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="writer")
        self._stop = stop
        self._unwritten: set[Order] = set()
        self._written = threading.Condition()
        self.pictures = 0
        """Pictures handed over so far."""

    def hand_over(self, order: Order, outcome: Outcome) -> None:
        """Queues an order's outcome for the writers. Waits while the queue is full; raises Stopped then."""
        self.wait(at_most=2 * order.bucket.slots - 1)
        with self._written:
            self._unwritten.add(order)
        self.pictures += isinstance(outcome, Finished)
        self._writers.submit(self._deliver, order, outcome)

    def wait(self, *, at_most: int) -> None:
        """Waits until at most so many orders are not written yet; raises Stopped when it has to stop."""
        with self._written:
            while not self._written.wait_for(lambda: len(self._unwritten) <= at_most, 0.2):
                if self._stop():
                    raise Stopped

    def unwritten(self) -> list[Order]:
        """The orders that were handed over and are not written yet."""
        with self._written:
            return [*self._unwritten]

    def flush(self, timeout: float) -> None:
        """Waits until the writers have nothing left to write, at most `timeout` seconds."""
        with self._written:
            self._written.wait_for(lambda: not self._unwritten, timeout)

    def close(self) -> None:
        """Waits until everything is written, and ends the writers."""
        self._writers.shutdown(wait=True)

    def _deliver(self, order: Order, outcome: Outcome) -> None:
        try:
            with bound(**order.context):
                order.deliver(outcome)
        finally:
            with self._written:
                self._unwritten.discard(order)
                self._written.notify_all()
