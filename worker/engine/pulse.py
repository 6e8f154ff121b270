"""Whether the engine's thread moves: what it does, since when, and when it last gave a sign of progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from worker.engine.renderer import Pipeline

Doing = Literal["loading", "rendering"]


@dataclass(frozen=True, slots=True)
class Stall:
    """Something that has not moved for a while."""

    doing: Doing
    pipeline: Pipeline
    lasts: float
    """Seconds since it began."""
    silent: float
    """Seconds since its last sign of progress."""


@dataclass(frozen=True, slots=True)
class _Act:
    doing: Doing
    pipeline: Pipeline
    began: float


class Pulse:
    """What a working thread does, and its signs of progress. Other threads read it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """The thread does nothing yet. `clock`: seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._act: _Act | None = None
        self._beat = clock()

    def beat(self) -> None:
        """Notes that the work moves: a forward ended, or a part of a file has come."""
        self._beat = self._clock()

    @contextmanager
    def doing(self, doing: Doing, pipeline: Pipeline) -> Iterator[None]:
        """Something that should move as long as it lasts."""
        with self._changed_to(_Act(doing, pipeline, self._clock())):
            yield

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Something within it that may last, such as a wait for Redis."""
        with self._changed_to(None):
            yield

    def stall(self, after: float) -> Stall | None:
        """What has given no sign for `after` seconds; None where all moves, or nothing is done."""
        with self._lock:
            act, now = self._act, self._clock()
            silent = now - self._beat
        if act is None or silent < after:
            return None
        return Stall(act.doing, act.pipeline, now - act.began, silent)

    @contextmanager
    def _changed_to(self, act: _Act | None) -> Iterator[None]:
        with self._lock:
            outer, self._act, self._beat = self._act, act, self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._act, self._beat = outer, self._clock()
