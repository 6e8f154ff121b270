"""Entries of a counter that are too many for memory: its buckets, in an unnamed temporary file."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryFile, gettempdir
from typing import IO

from jobs.errors import OutputError

BITS = 15
"""Last bits of a key, which choose its bucket."""
BUCKETS = 1 << BITS
KEY, EACH = 7, 11
"""Bytes of the part of a key that its bucket does not give; bytes of that part and the key's number."""
FILTER_BYTE, FILTER_BIT = 40, 7
"""A key's first bit in the filter: of the byte of its upper 24 bits, the one of its last 3 bits."""
_SECOND_BYTE, _SECOND_BIT = 16, 3
"""Its second bit: of the byte of the 24 bits from the 16th, the one of the 3 bits from the third."""
_FILTER_BYTES = 1 << (64 - FILTER_BYTE)
_MOST_RUNS = 8
_NOWHERE = 0, -1
_AT_A_TIME = 512
"""Buckets that are read or noted together."""


def place_in(bucket: bytes, rest: bytes) -> int:
    """Where in a bucket the entry begins whose key has the part `rest`; -1: nowhere."""
    place = bucket.find(rest)
    # Bytes that look like the key may belong to another key and its number.
    while place > 0 and place % EACH:
        place = bucket.find(rest, place + 1)
    return place


class SpilledBuckets:
    """Buckets in a file, in at most 8 runs: a run has all buckets in order, and a key is in one of them.

    Memory is 16 MB for a filter (two of its bits for each key), which tells nearly every key that is not
    there, and 256 kB a run. Methods raise OutputError where the temporary folder cannot hold the file.
    """

    def __init__(self) -> None:
        self.filter = bytearray(_FILTER_BYTES)
        """A key whose first bit here is 0 is not there: who looks for millions need not call `find`."""
        # Where in the file each bucket of a run begins, and where the last one ends. The newest run comes
        # first: lines that are equal are seldom far from each other.
        self._runs: list[array[int]] = []
        # Who finds a key asks for it again, to change it.
        self._last, self._last_found = -1, _NOWHERE
        self._open()

    def add(self, buckets: Sequence[bytes]) -> None:
        """Takes in all buckets of a counter; none of their keys may be there."""
        self._note(buckets)
        self._last = -1  # its place may change
        try:
            if len(self._runs) < _MOST_RUNS:
                self._runs.insert(0, _written(self._file, buckets))
                return
            # One run of all, so that a key is not looked for in ever more places.
            close, joined = self._close, map(bytes.__add__, self._all(), buckets)
            self._open()
            self._runs = [_written(self._file, joined)]
            close()
        except OSError as error:
            raise _no_room(error) from None

    def find(self, key: int) -> tuple[int, int]:
        """The number of `key`, and the place of that number for `put`; 0 for a key that is not there."""
        if key == self._last:
            return self._last_found
        # Most keys are not there, and most of those lack the first bit.
        if not self.filter[key >> FILTER_BYTE] >> (key & FILTER_BIT) & 1:
            return _NOWHERE
        second = key >> _SECOND_BYTE & (_FILTER_BYTES - 1)
        if not self.filter[second] >> (key >> _SECOND_BIT & FILTER_BIT) & 1:
            return _NOWHERE
        at, rest = key & (BUCKETS - 1), (key >> BITS).to_bytes(KEY, "little")
        try:
            for run in self._runs:
                start = run[at]
                bucket = os.pread(self._descriptor, run[at + 1] - start, start)
                place = place_in(bucket, rest)
                if place >= 0:
                    number = int.from_bytes(bucket[place + KEY : place + EACH], "little")
                    self._last, self._last_found = key, (number, start + place + KEY)
                    return self._last_found
        except OSError as error:
            raise _no_room(error) from None
        return _NOWHERE

    def put(self, place: int, number: int) -> None:
        """Gives the key whose number is at `place` another one."""
        if place == self._last_found[1]:
            self._last_found = number, place
        try:
            os.pwrite(self._descriptor, number.to_bytes(EACH - KEY, "little"), place)
        except OSError as error:
            raise _no_room(error) from None

    def __iter__(self) -> Iterator[bytes]:
        """Each bucket, in order."""
        try:
            yield from self._all()
        except OSError as error:
            raise _no_room(error) from None

    def _open(self) -> None:
        try:
            self._file: IO[bytes] = TemporaryFile(prefix="imagemill-")  # noqa: SIM115 - closed with this object
        except OSError as error:
            raise _no_room(error) from None
        self._descriptor = self._file.fileno()
        self._close = weakref.finalize(self, self._file.close)

    def _all(self) -> Iterator[bytes]:
        return _buckets(self._descriptor, self._runs)

    def _note(self, buckets: Sequence[bytes]) -> None:
        """Sets the bits of every key in the filter."""
        import numpy

        bits = numpy.frombuffer(self.filter, numpy.uint8)
        for first in range(0, BUCKETS, _AT_A_TIME):
            some = buckets[first : first + _AT_A_TIME]
            entries = numpy.frombuffer(b"".join(some), numpy.uint8).reshape(-1, EACH)
            keys = numpy.zeros((len(entries), 8), numpy.uint8)
            keys[:, :KEY] = entries[:, :KEY]
            at = numpy.repeat(
                numpy.arange(first, first + len(some), dtype="<u8"), [len(one) // EACH for one in some]
            )
            whole = keys.view("<u8").ravel() << BITS | at
            for byte, bit in (
                (whole >> FILTER_BYTE, whole),
                (whole >> _SECOND_BYTE & (_FILTER_BYTES - 1), whole >> _SECOND_BIT),
            ):
                numpy.bitwise_or.at(bits, byte, (1 << (bit & FILTER_BIT)).astype(numpy.uint8))


def _buckets(descriptor: int, runs: Sequence[array[int]]) -> Iterator[bytes]:
    """Each bucket of the runs together, in order."""
    for first in range(0, BUCKETS, _AT_A_TIME):
        last = first + _AT_A_TIME
        pieces = [os.pread(descriptor, run[last] - run[first], run[first]) for run in runs]
        for at in range(first, last):
            yield b"".join(
                piece[run[at] - run[first] : run[at + 1] - run[first]]
                for run, piece in zip(runs, pieces, strict=True)
            )


def _written(file: IO[bytes], buckets: Iterable[bytes]) -> array[int]:
    """Writes a run to the end of the file."""
    end = file.seek(0, os.SEEK_END)
    run = array("Q", [end])
    for bucket in buckets:
        file.write(bucket)
        end += len(bucket)
        run.append(end)
    file.flush()
    return run


def _no_room(error: OSError) -> OutputError:
    return OutputError(
        f"{gettempdir()}: cannot hold what lines are compared with ({error.strerror}): free some space "
        "there, or set TMPDIR to another folder"
    )
