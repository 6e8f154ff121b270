"""At what pace files are uploaded: large parts at once, or small ones in turn over an uplink that is slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Final, NamedTuple

from obstore.exceptions import BaseError

from jobs.output import bucket_client
from jobs.output.bucket_client import asked
from jobs.output.store import Unreachable


class Pace(NamedTuple):
    """How an upload is cut; what is no larger than a part is sent in one request."""

    part: int
    at_once: int
    """Bytes of a part, and parts that are under way: an uplink moves so many within a request's time."""


USUAL, SLOW = Pace(8 << 20, 4), Pace(5 << 20, 1)
"""The pace of a first try, and of those after it: S3 takes no smaller parts."""
_SLOW_FOR: Final = 600
"""Seconds after a try that took as long as a request may, in which no other begins at the usual pace."""


class _Uplink:
    """What this process knows of its link to all stores."""

    def __init__(self) -> None:
        self._slow_until = 0.0

    @property
    def is_slow(self) -> bool:
        return time.monotonic() < self._slow_until

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Takes note of a try that fails, and lasted as long as a request may."""
        began = time.monotonic()
        try:
            yield
        except (BaseError, OSError):
            if time.monotonic() - began >= bucket_client.PATIENCE.request:
                self._slow_until = time.monotonic() + _SLOW_FOR
            raise


_uplink = _Uplink()


def paced(named: str, size: int, send: Callable[[Pace], None]) -> None:
    """Send a file of `size` bytes; after a try that got no answer, at the slow pace.

    Raises Unreachable where no try got one, or another OSError.
    """
    paces = repeat(SLOW) if _uplink.is_slow else chain((USUAL,), repeat(SLOW))
    tried: list[Pace] = []

    def try_next() -> None:
        tried.append(next(paces))
        with _uplink.watched():
            send(tried[-1])

    try:
        asked(named, try_next)
    except Unreachable:
        # The first try of a large file may last longer than it is tried again.
        if len(tried) > 1 or size <= SLOW.part:
            raise
        asked(named, try_next)
