"""At what pace files are uploaded: small parts in turn until the uplink is known, then larger ones at once.

What is given up half-way is not taken back: the system goes on sending what it holds of it, and a slow uplink
is full of that for minutes. So no more is sent at once than is known to get through within a request's time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

from obstore.exceptions import BaseError

from jobs.output import bucket_client
from jobs.output.bucket_client import asked
from jobs.output.store import Unreachable


class Pace(NamedTuple):
    """How an upload is cut; what is no larger than a part is sent in one request."""

    part: int
    at_once: int
    """Bytes of a part, and parts that are under way: an uplink moves so many within a request's time."""

    @property
    def bytes(self) -> int:
        """What is under way at once."""
        return self.part * self.at_once


FIRST, FULL = Pace(5 << 20, 1), Pace(8 << 20, 4)
"""The pace over an uplink that is not known or slow, for S3 takes no smaller parts; and over a fast one."""
SMALL: Final = 256 << 10
"""Bytes of a file that waits for no other: so that a job's state needs not wait for its pictures."""


class Uplink:
    """What this process knows of its link to all stores, and how much is under way there."""

    def __init__(self, first: Pace = FIRST, full: Pace = FULL, small: int = SMALL) -> None:
        self.first, self.full, self.small = first, full, small
        self.forget()

    def forget(self) -> None:
        """Forget what is known."""
        self._rate, self._under_way = 0.0, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @property
    def _most(self) -> int:
        """Bytes that may be under way at once: what the link moves in half a request's time."""
        return max(self.first.bytes, int(self._rate * bucket_client.PATIENCE.request / 2))

    @property
    def pace(self) -> Pace:
        """The pace of an upload that begins now."""
        if self._most >= self.full.bytes:
            return self.full
        return Pace(self.first.part, min(self.full.at_once, self._most // self.first.part))

    @contextmanager
    def room_for(self, size: int) -> Iterator[Pace]:
        """Waits until others have left room; inside, a file of `size` bytes may go at the pace."""
        if size <= self.small:
            yield self.pace
            return
        # One after the other, so that small ones do not keep large ones waiting.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._has_room(size))
            pace, taken = self.pace, self._taken_by(size)
            self._under_way += taken
        try:
            yield pace
        finally:
            with self._changed:
                self._under_way -= taken
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._under_way or self._under_way + self._taken_by(size) <= self._most

    def _taken_by(self, size: int) -> int:
        """The bytes of a file that are under way at once."""
        return min(size, self.pace.bytes)

    @contextmanager
    def watched(self, size: int) -> Iterator[None]:
        """Takes note of how fast a file was sent, or that a try failed after a whole request's time."""
        began = time.monotonic()
        try:
            yield
        except (BaseError, OSError):
            if time.monotonic() - began >= bucket_client.PATIENCE.request:
                self._rate = 0.0
            raise
        if size > self.small:
            rate = size / max(time.monotonic() - began, 1e-3)
            # What is no larger than a part says more of how far the store is: the link is as fast at least.
            self._rate = rate if size > self.first.part else max(rate, self._rate)


UPLINK = Uplink()
# An upload that is under way stays with the parent, and a lock as it is.
os.register_at_fork(after_in_child=UPLINK.forget)


class Parts:
    """A file as one try to upload it sends it."""

    __slots__ = ("_asked", "_file", "pace", "size")

    def __init__(self, file: BinaryIO, size: int, pace: Pace) -> None:
        self._file, self.size, self.pace = file, size, pace
        self._asked = 0

    @property
    def several(self) -> bool:
        """Whether it is more than one part."""
        return self.size > self.pace.part

    @property
    def moved(self) -> bool:
        """Whether a part has got through: no more than are under way at once are asked for, and one ahead."""
        return self._asked > self.pace.at_once + 1

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        self._asked = 0
        while True:
            self._asked += 1
            part = self._file.read(self.pace.part)
            if not part:
                return
            yield part


def paced(named: str, file: BinaryIO, send: Callable[[Parts], None]) -> None:
    """Send a file, once there is room; again after a try that got no answer, at the pace that is known then.

    A hang is given up within a lease: only a try that moved a part is followed by more when time is over.
    Raises Unreachable where no try got an answer, or another OSError.
    """
    size = file.seek(0, os.SEEK_END)
    last: list[Parts] = []

    def try_next() -> None:
        last[:] = [Parts(file, size, min(room, UPLINK.pace))]
        with UPLINK.watched(size):
            send(last[0])

    with UPLINK.room_for(size) as room:
        try:
            asked(named, try_next)
        except Unreachable:
            # The first try of a large file may last longer than it is tried again.
            if not last[0].moved:
                raise
            asked(named, try_next)
