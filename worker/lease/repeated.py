"""What goes wrong again and again, said once and then now and then: a log of an outage stays readable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_PAUSES: Final = (60.0, 600.0)
"""Seconds from the first line to the second, and from each further one to the next."""


@dataclass(slots=True)
class _Trouble:
    kind: type[BaseException]
    began: float
    next_line: float
    count: int = 1
    lines: int = 1


class Repeated:
    """Decides which of many equal errors are logged. Threads may share one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock, self._lock = clock, threading.Lock()
        self._troubles: dict[str, _Trouble] = {}

    def to_say(self, duty: str, error: BaseException) -> str | None:
        """What a line about the error says besides, or None if there should be no line now.

        Nothing for the first error of a kind, how often it came for a later one.
        """
        now = self._clock()
        with self._lock:
            trouble = self._troubles.get(duty)
            if trouble is None or trouble.kind is not type(error):
                self._troubles[duty] = _Trouble(type(error), now, now + _PAUSES[0])
                return ""
            trouble.count += 1
            if now < trouble.next_line:
                return None
            trouble.next_line = now + _PAUSES[min(trouble.lines, len(_PAUSES) - 1)]
            trouble.lines += 1
            return f" ({trouble.count:,} times in {now - trouble.began:,.0f} s)"

    def over(self, duty: str) -> None:
        """The duty was done: the next error is a new one."""
        with self._lock:
            self._troubles.pop(duty, None)
