"""The orders of one bucket that a renderer works on: what entered, what left, what is in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.engine.renderer import Bucket, Renderer
from worker.engine.request_queue import Order


class Batch:
    """What a renderer takes the images of one bucket from, and those of them that have not left it yet.

    It is the engine thread's own; only `in_flight` is read by other threads.
    """

    def __init__(
        self,
        bucket: Bucket,
        schedule: Callable[[Batch, int], Sequence[Order]],
        upcoming: Callable[[int], Sequence[Order]],
        *,
        fixed: bool = False,
    ) -> None:
        """schedule(batch, free_slots): the orders that enter now. fixed: no others follow those in flight."""
        self.bucket, self.upcoming, self.fixed = bucket, upcoming, fixed
        self._schedule = schedule
        self.in_flight: list[Order] = []

    @classmethod
    def of(cls, renderer: Renderer, bucket: Bucket, orders: Sequence[Order]) -> Batch:
        """These orders and no others; all of them are in flight from the start."""
        left = list(orders)

        def schedule(batch: Batch, free_slots: int) -> list[Order]:
            left[:] = [order for order in left if order in batch.in_flight]  # some may be turned away
            fitting: list[Order] = []
            while left and (slots := renderer.slots(left[0].request)) <= free_slots:
                fitting.append(left.pop(0))
                free_slots -= slots
            return fitting

        batch = cls(bucket, schedule, lambda count: left[:count], fixed=True)
        batch.entered(orders)
        return batch

    def take(self, free_slots: int) -> Sequence[Order]:
        """The orders that enter the slots now, as `Source.take`."""
        return self._schedule(self, free_slots)

    def entered(self, orders: Sequence[Order]) -> None:
        """Adds orders to those in flight."""
        self.in_flight.extend(orders)

    def left(self, order: Order) -> None:
        """Takes an order off those in flight."""
        self.in_flight.remove(order)
