"""The engine's time, shared out among the images in its slots: what an image costs among any others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.engine.renderer import Bucket, Pipeline, Renderer
from worker.engine.request_queue import Order


class SlotTime:
    """Gives each slot its share of the time that a bucket's forwards take, and of all that goes with them.

    Free slots of a padded forward keep their share: a short job shows as well as a long one what an image
    costs when the slots are full.
    """

    def __init__(self, renderer: Renderer, bucket: Bucket, clock: Callable[[], float]) -> None:
        self._renderer = renderer
        padded = bucket.mode == "exact" and renderer.batching != "alone"
        self._at_least = bucket.slots if padded else 1
        self._clock, self._last = clock, clock()
        self._of_a_slot = 0.0
        """Seconds that a slot was given so far."""
        self._entered: dict[Order, float] = {}

    def share_out(self, inside: Sequence[Order]) -> None:
        """Shares the time since the last call among these images, which were in the slots."""
        now, slots = self._clock(), 0
        for order in inside:
            slots += self._renderer.slots(order.request)
            self._entered.setdefault(order, self._of_a_slot)
        # Pictures that wait to be decoded are more than the slots hold.
        self._of_a_slot += (now - self._last) / max(slots, self._at_least)
        self._last = now

    def use(self, order: Order) -> SlotUse:
        """What an image that leaves took, and was given."""
        slots = self._renderer.slots(order.request)
        seconds = slots * (self._of_a_slot - self._entered.pop(order))
        return SlotUse(slots * self._renderer.forwards(order.request), seconds)


@dataclass(frozen=True, slots=True)
class SlotUse:
    """What pictures took of the slots they shared."""

    row_evaluations: int
    """Forwards times slots: what `plan` counts an image as."""
    seconds: float
    """Seconds of the whole engine with all slots full."""


class SlotUses:
    """Adds up what finished pictures took, by the kind of their bucket; any thread may ask."""

    def __init__(self) -> None:
        self._uses: dict[tuple[Pipeline, int, int], SlotUse] = {}
        self._lock = threading.Lock()

    def add(self, bucket: Bucket, use: SlotUse) -> None:
        """Adds what a picture took."""
        with self._lock:
            before = self._uses.get(bucket.kind, SlotUse(0, 0.0))
            self._uses[bucket.kind] = SlotUse(
                before.row_evaluations + use.row_evaluations, before.seconds + use.seconds
            )

    def take(self, bucket: Bucket) -> SlotUse:
        """The sum since it was taken last."""
        with self._lock:
            return self._uses.pop(bucket.kind, SlotUse(0, 0.0))
