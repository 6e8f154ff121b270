"""Pictures of requests that enter a hub together, as the proof of what was learned needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from jobs.request import ImageRequest
from worker.diffusion.call_rules import CallRules
from worker.diffusion.interception import Hub, painted
from worker.diffusion.painter import Painter, Painting
from worker.renderers.noise_pictures import NOISE_PICTURES

Computing = Callable[[], AbstractContextManager[object]]
_SLOTS = 4
"""Slots of the proof's forwards; a text rule's spare one is more."""


def paint_together(
    painter: Painter,
    rules: Mapping[str, CallRules],
    requests: Sequence[ImageRequest],
    *,
    slots: int = _SLOTS,
    computing: Computing = nullcontext,
    moved: Callable[[], None] = lambda: None,
) -> tuple[list[Painting], int]:
    """The pictures of requests that enter together, in their order, and the number of forwards.

    moved: called after each forward.
    Raises what one of them raised.
    """
    hub: Hub[int] = Hub(rules, slots, spare=painter.spare_slots, computing=computing)
    waiting = list(enumerate(requests))
    paintings: dict[int, Painting] = {}
    try:
        while len(paintings) < len(requests):
            while waiting and hub.free_slots:
                index, request = waiting.pop(0)
                hub.start(index, partial(painter.paint, request, NOISE_PICTURES))
            if hub.running:
                hub.forward()
                moved()
            paintings |= {index: painted(result) for index, result in hub.finished()}
    finally:
        hub.close()
    return [paintings[index] for index in range(len(requests))], hub.forwards
