"""Where a shard's pictures arrive: the engine's writers save them, the shard's run collects the results."""

from __future__ import annotations

import logging
import queue
from dataclasses import dataclass

from jobs.errors import ImagemillError, RenderError
from worker.engine.request_queue import Outcome
from worker.lease.disk_space import WithSpace
from worker.lease.lease import GiveBack
from worker.shard.store import ShardStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What came of one image: saved, or an error."""

    position: int
    flagged: bool = False
    error: Exception | None = None
    """RenderError is the image's own failure; any other ends the shard's run."""


class Arrivals:
    """Saves pictures into a shard's store, and keeps what came of each until it is collected."""

    def __init__(self, store: ShardStore, with_space: WithSpace) -> None:
        """with_space: makes a write to the output once there is space for it."""
        self._store, self._with_space = store, with_space
        self._arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    def save_picture(self, position: int, outcome: Outcome) -> None:
        """Saves a picture, on a writer's thread; a full disk makes it wait, never fail."""
        if isinstance(outcome, ImagemillError):
            self.fail(position, outcome)
            return
        picture, by, flagged = outcome.picture, outcome.rendered_by, outcome.flagged
        try:
            self._with_space(
                lambda: self._store.save(position, picture.pixels, by, flagged, picture.prompt_cut)
            )
        except (ImagemillError, GiveBack) as error:
            self.fail(position, error)
        except Exception as error:
            log.exception("the picture cannot be saved")
            self.fail(position, RenderError(f"cannot be saved: {type(error).__name__}: {error}"))
        else:
            self._arrived.put(Arrival(position, flagged=flagged is not None))

    def fail(self, position: int, error: Exception) -> None:
        """Records that an image has no picture, and why."""
        self._arrived.put(Arrival(position, error=error))

    def collect(self) -> list[Arrival]:
        """What arrived since the last time; waits up to a tenth of a second for the first."""
        try:
            arrived = [self._arrived.get(timeout=0.1)]
        except queue.Empty:
            return []
        while not self._arrived.empty():
            arrived.append(self._arrived.get())
        return arrived
