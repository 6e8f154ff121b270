"""Whether Celery's consumer still takes wake-ups while there are some, and work for them."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 45.0
"""Seconds; Celery waits at most 30 between two attempts to connect again."""
GAP = 5.0
"""Seconds between two looks after which nothing is known of the time between: Redis was away."""


class ConsumerWatch:
    """Sees an idle worker that takes none of the wake-ups that are in the queue."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._since: float | None = None
        self._looked = clock()

    def woken(self) -> None:
        """A wake-up has come."""
        self._since = None

    def stopped(self, untaken: bool) -> bool:
        """Whether none has come for `LIMIT` although at each look some were `untaken`: in the queue, with
        work for this worker, which holds nothing. It begins again after a `GAP` between two looks.
        """
        now = self._clock()
        is_gap, self._looked = now - self._looked > GAP, now
        if not untaken:
            self._since = None
            return False
        if self._since is None or is_gap:
            self._since = now
        return now - self._since >= LIMIT
