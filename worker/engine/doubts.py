"""What becomes of a doubtful image: it is found among its neighbours, and rendered again, alone in fp32."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from jobs.errors import OutputError, RenderError
from worker.encode import is_flat
from worker.engine.batch import Batch
from worker.engine.delivery import Delivery
from worker.engine.renderer import (
    BrokenDevice,
    OutOfMemory,
    Picture,
    Renderer,
    Stopped,
    first_line,
    rendered_by,
)
from worker.engine.request_queue import Finished, Order
from worker.error_frames import drop_frames
from worker.logs import bound

log = logging.getLogger(__name__)


def doubt_of(picture: Picture) -> str | None:
    """What makes a picture doubtful; None for a good one."""
    if not picture.finite:
        return "non-finite values"
    return "one flat colour" if is_flat(picture.pixels) else None


class Doubts:
    """Gives each doubtful image a second look, after which it is good, flagged or failed."""

    def __init__(self, delivery: Delivery, stop: Callable[[], bool]) -> None:
        self._delivery, self._stop = delivery, stop
        self.postponed: list[tuple[Order, str]] = []
        """Images that did not fit into memory while slots were held, and what is doubtful about them."""
        self.seconds = 0.0
        """Spent on images alone so far, while the slots stood still."""

    def isolate(
        self, renderer: Renderer, batch: Batch, error: Exception, render: Callable[[Batch], None]
    ) -> None:
        """Finds the image to blame for an error among those in flight, by halves.

        render: renders a batch as the engine does, and comes back here when that raises.
        """
        suspects = batch.in_flight
        if len(suspects) == 1 and batch.fixed:
            self.render_alone(renderer, suspects[0], f"raised {first_line(error)}")
            return
        log.warning("%d images raised %s: rendering their halves", len(suspects), first_line(error))
        middle = len(suspects) // 2
        for half in (suspects[:middle], suspects[middle:]):
            if half:
                render(Batch.of(renderer, batch.bucket, half))

    def render_alone(self, renderer: Renderer, order: Order, doubt: str) -> None:
        """Renders a doubtful image once more; when memory runs out while slots are held, it is postponed."""
        try:
            self._render_alone(renderer, order, doubt)
        except OutOfMemory:
            self.postponed.append((order, f"{doubt}, and it did not fit into memory next to the others"))

    def render_postponed(self, renderer: Renderer) -> None:
        """Renders what was postponed, in the memory that no slots need now."""
        while self.postponed:
            order, doubt = self.postponed[0]
            try:
                self._render_alone(renderer, order, doubt)
            except OutOfMemory as error:
                drop_frames(error)
                self._fail(order, f"raised {first_line(error)}")
            del self.postponed[0]  # only now: until it was handed over, it is listed here

    def _render_alone(self, renderer: Renderer, order: Order, doubt: str) -> None:
        """Renders an image alone and in fp32, and hands over what it is then. Raises OutOfMemory."""
        with bound(**order.context):
            log.warning("%s; once more, alone in fp32", doubt)
        began = time.monotonic()
        try:
            picture = renderer.render_alone(order.request, order.inputs, self._stop)
        except (Stopped, BrokenDevice, OutOfMemory):
            raise
        except OutputError as error:  # no failure of the image
            drop_frames(error)
            self._delivery.hand_over(order, error)
            return
        except Exception as error:
            drop_frames(error)  # the writers may be waited for
            self._fail(order, f"raised {first_line(error)}")
            return
        finally:
            self.seconds += time.monotonic() - began
        if not picture.finite:
            self._fail(order, "the model gave non-finite values")
            return
        alone = replace(order.bucket, slots=renderer.slots(order.request), mode="exact")
        by = replace(rendered_by(renderer, alone, order.request), precision="fp32")
        self._delivery.hand_over(order, Finished(picture, by, flagged=doubt_of(picture)))

    def _fail(self, order: Order, reason: str) -> None:
        self._delivery.hand_over(order, RenderError(f"{reason}, alone in fp32 too"))
