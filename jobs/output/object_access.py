"""A file in a bucket, read at any place: by few requests, each for more than was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

AHEAD: Final = 256 << 10
_BLOCK: Final = 1 << 20
"""Bytes that are read ahead in an object: at first, where a shard has its records, and later."""
PART: Final = 2 << 20
_PARTS_AT_ONCE: Final = 4
"""Bytes of a part of a file that is read whole, and how many parts are under way: a link that moves so many
within the time of a request, and of its repetition, is fast enough."""

PartOf = Callable[[int, int], tuple[int, bytes]]
"""Gives the size of an object, and up to so many (second) bytes of it from a place."""


class ObjectAccess:
    """An object that is read in blocks, of which the first and the last are kept; see `RandomAccess`."""

    __slots__ = ("_block", "_first", "_part_of", "_start", "size")

    def __init__(self, part_of: PartOf) -> None:
        self._part_of, self._start = part_of, 0
        self.size, self._first = part_of(0, AHEAD)
        self._block = self._first

    def read_at(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`; fewer only at its end. Raises OSError."""
        stop = min(start + size, self.size)
        if start >= stop:
            return b""
        if stop <= len(self._first):
            return self._first[start:stop]
        if start < self._start or stop > self._start + len(self._block):
            _, self._block = self._part_of(start, max(stop - start, _BLOCK))
            self._start = start
        return self._block[start - self._start : stop - self._start]


def fetch(part_of: PartOf, size: int, file: BinaryIO, start: int = 0) -> None:
    """Copy an object to this machine from `start`, in parts: a slow link only makes each of them late."""

    def fetch_part(start: int) -> None:
        _, data = part_of(start, PART)
        file_at = start
        while data:
            written = os.pwrite(file.fileno(), data, file_at)
            data, file_at = data[written:], file_at + written

    with ThreadPoolExecutor(_PARTS_AT_ONCE, "fetch") as pool:
        for _ in pool.map(fetch_part, range(start, size, PART)):
            pass
