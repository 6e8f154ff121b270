"""Two processes of one worker name: each overwrites what the other tells, so that they count as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

KEPT = 60.0
"""Seconds that a twin is told after it was last heard of."""
_ENOUGH = 2
"""Times that another is heard within `KEPT`: a process that this one replaces may be heard once more."""


class Twin:
    """Sees, in what the ledger holds of a worker, that another process writes there too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is written yet. `clock`: seconds."""
        self._clock = clock
        self._written: tuple[str, str] | None = None
        self._heard: list[float] = []
        self._other = ""

    def look(self, held: Mapping[str, str], own: Mapping[str, str | int | float]) -> None:
        """Takes what the ledger holds, and what this process now writes over it."""
        written, self._written = self._written, (str(own.get("process", "")), str(own.get("pid", "")))
        # By a random word, and the pid too: an earlier version knows no such word.
        if written is None or not held or (held.get("process", ""), held.get("pid", "")) == written:
            return
        self._heard = [*self._heard, self._clock()][-_ENOUGH:]
        self._other = f"pid {held.get('pid', '?')} on {held.get('host', '?')}"

    @property
    def trouble(self) -> str:
        """What is wrong, with the remedy; empty while this process is alone."""
        last = self._heard[-1:]
        if len(self._heard) < _ENOUGH or self._clock() - last[0] > KEPT or last[0] - self._heard[0] > KEPT:
            return ""
        return (
            f"another worker process has this name too ({self._other}), so that both count as one: start one "
            "of them with another --name"
        )
