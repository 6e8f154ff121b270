"""The order of an output's lines: first what a job asked for, in its order, then what it did not ask for.

The records of a job say their own places. Where the output held some of what it asks for before, those have
the place of another job: the submission then writes the keys of all its lines, in order, 8 bytes each.
"""

from __future__ import annotations

import errno
import shutil
import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from jobs.errors import OutputError
from jobs.output.compact_counter import CompactCounter
from jobs.output.job_files import JobFiles
from jobs.output.lines import key_of, place_of
from jobs.output.output import REPORT, Output
from jobs.output.store import RandomAccess, Unreachable, pieces
from jobs.output.stored_shard import Span, damaged
from jobs.plain_file import MAX_ORDER, TooLarge

if TYPE_CHECKING:
    import numpy as np

_EACH = 8
"""Bytes of a key."""
_NOT_ASKED = 1 << 40
"""Above every place of what is asked for."""


def as_kept(keys: array[int]) -> bytes:
    """The `line_key`s of lines as the file of an order has them."""
    return _little_endian(keys).tobytes()


def write_order(output: Output, job_id: str, kept: IO[bytes]) -> None:
    """Keeps the order of a submission's lines. `kept`: their keys as of `as_kept`, read from here on."""
    with output.store.written(JobFiles(output, job_id).line_order) as file:
        shutil.copyfileobj(kept, file)


def last_job(output: Output) -> str | None:
    """The job that finished last in the output, as job.json says; None where it does not."""
    try:
        job_id = str(output.read_json(REPORT)["job_id"])
        JobFiles(output, job_id)  # others may have written job.json
    except (OSError, ValueError, KeyError, TypeError, OutputError):
        return None
    return job_id


class Places:
    """The place of each record in what one job asked for: 11 bytes a line where the job wrote its order."""

    def __init__(self, output: Output, job_id: str | None) -> None:
        """Raises OutputError where the order that was written cannot be read."""
        self._job_id, self._order = job_id, None if job_id is None else _read(output, job_id)

    def of(self, record: Mapping[str, Any]) -> int | None:
        """The record's place, from 0; None for one that the job did not ask for, or from before records had
        a place."""
        if self._order is not None:
            number = self._order.get(key_of(record))
            return number - 1 if number else None
        return place_of(record) if record.get("job_id") == self._job_id else None


class Split:
    """Where the lines of a dataset lie, in one order: 24 bytes each, whatever order that is."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._shards, self._starts, self._sizes = array("I"), array("Q"), array("I")
        self._ranks = array("Q")
        self._in_order = True

    def add(self, shard: int, span: Span, record: Mapping[str, Any]) -> None:
        """Takes in the next record of the output."""
        place = self._places.of(record)
        rank = _NOT_ASKED + len(self._ranks) if place is None else place
        self._in_order = self._in_order and (not self._ranks or rank >= self._ranks[-1])
        self._shards.append(shard)
        self._starts.append(span.start)
        self._sizes.append(span.size)
        self._ranks.append(rank)

    def __len__(self) -> int:
        return len(self._ranks)

    def __iter__(self) -> Iterator[tuple[int, Span]]:
        """Shard and place of each line's record; of two of one rank the first in the output comes first."""
        order = range(len(self)) if self._in_order else self._sorted()
        for i in order:
            yield self._shards[i], Span(self._starts[i], self._sizes[i])

    @property
    def in_order(self) -> bool:
        """Whether the order is that of the shards."""
        return self._in_order

    def _sorted(self) -> np.ndarray:
        import numpy

        return numpy.argsort(numpy.frombuffer(self._ranks, numpy.uint64), kind="stable")


def _read(output: Output, job_id: str) -> CompactCounter | None:
    """The keys of a job's lines, each with its first place + 1; None where the job wrote no order."""
    name, order, read = JobFiles(output, job_id).line_order, CompactCounter(), 0
    try:
        with output.store.opened(name) as file:
            if file.size > MAX_ORDER:
                raise TooLarge(errno.EFBIG, f"larger than {MAX_ORDER >> 20:,} MiB")
            for keys in _keys(file):
                for place, key in enumerate(keys, read + 1):
                    if not order.get(key):
                        order.set(key, place)
                read += len(keys)
    except FileNotFoundError:
        return None
    except Unreachable:
        raise
    except OSError as error:
        raise output.unreadable(name, error) from None
    except ValueError as error:
        raise damaged(output.named(name), f"is no order of lines ({error})") from None
    return order


def _keys(file: RandomAccess) -> Iterator[array[int]]:
    """The keys of a kept order, a part at a time. Raises ValueError where one is cut off."""
    rest = b""
    for piece in pieces(file):
        held = rest + piece
        whole = len(held) - len(held) % _EACH
        rest = held[whole:]
        yield _little_endian(array("Q", held[:whole]))
    if rest:
        raise ValueError(f"{len(rest)} bytes after the last key")


def _little_endian(keys: array[int]) -> array[int]:
    """The same in the bytes' order of the file, or back."""
    if sys.byteorder == "big":
        keys = keys[:]
        keys.byteswap()
    return keys
