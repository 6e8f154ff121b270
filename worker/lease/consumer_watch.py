"""Whether Celery's consumer still takes wake-ups while there are some, and work for them."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 45.0
"""Seconds; Celery waits at most 30 between two attempts to connect again."""


class ConsumerWatch:
    """Sees an idle worker that takes none of the wake-ups that are in the queue."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._since: float | None = None

    def woken(self) -> None:
        """A wake-up has come."""
        self._since = None

    def stopped(self, untaken: bool) -> bool:
        """Whether none has come for `LIMIT` although at each look some were `untaken`: in the queue, with
        work for this worker, which holds nothing.
        """
        if not untaken:
            self._since = None
            return False
        now = self._clock()
        if self._since is None:
            self._since = now
        return now - self._since >= LIMIT
