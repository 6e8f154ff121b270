"""Which shards an output has: asked for one by one, and listed only where that does not tell.

A listing of hundreds of thousands of shards takes seconds, and of a bucket a request for each thousand. It is
kept for as long as it pays: twenty times as long as it took, and at least two seconds.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final

from jobs.output.output import Output
from jobs.output.webdataset import TarShard

_KEPT: Final = 2.0
_TIMES: Final = 20.0


class ShardList:
    """The committed shards of one output."""

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._listed: array[int] | None = None
        self._until = 0.0
        self._lock = Lock()

    def listed(self) -> Sequence[int]:
        """Their numbers, ascending, as they were a while ago. Raises OutputError, OSError."""
        with self._lock:
            began = self._clock()
            if self._listed is None or began >= self._until:
                self._listed = array("Q", self._output.shards())
                took = self._clock() - began
                self._until = began + took + max(_KEPT, _TIMES * took)
            return self._listed

    def listed_among(self, numbers: Iterable[int], *, afresh: bool = False) -> set[int]:
        """Those of the numbers that were there when they were listed last, or are there now if `afresh`."""
        if afresh:
            with self._lock:
                self._until = 0.0
        return {*numbers} & {*self.listed()}

    def following(self, number: int) -> int | None:
        """The first of them from `number` on; None where there is none."""
        if self._is_there(number):
            return number
        listed = self.listed()
        place = bisect_left(listed, number)
        return listed[place] if place < len(listed) else None

    def preceding(self, number: int) -> int | None:
        """The last of them before `number`; None where there is none."""
        if number < 1:
            return None
        if self._is_there(number - 1):
            return number - 1
        listed = self.listed()
        place = bisect_left(listed, number)
        return listed[place - 1] if place else None

    def ordinal(self, number: int) -> int:
        """How many of them come before a number."""
        return bisect_left(self.listed(), number)

    def _is_there(self, number: int) -> bool:
        """Whether it is committed; for a number that no shard of the output's names can have, it is not."""
        names = self._output.names
        if number >= 10**names.digits and names.nested:
            return False
        stored = self._output.stored(number)
        if isinstance(stored, TarShard) and stored.store.is_remote:
            with self._output.reading():
                return stored.committed()
        return stored.committed()
