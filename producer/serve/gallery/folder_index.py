"""Where the records of a folder lie in its metadata.jsonl, so that one is read without those before it."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from jobs.errors import OutputError
from jobs.output.files import METADATA, FolderShard
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.store import OutputStore
from jobs.output.stored_shard import Span, damaged
from producer.serve.gallery.raw_record import parsed_record

_NAME: Final = re.compile(rb'\{"file_name": "([0-9]{9,}\.[a-z]+)"')
"""How `layout: files` begins the line of a record."""
TOO_MANY: Final = "more lines than a shard has images"


class Gap(NamedTuple):
    """Lines that tell no place, one after the other."""

    start: int
    """The first place in the shard that they may hide."""
    stop: int
    """The first after it that they cannot."""
    trouble: str
    """What is wrong with the first of them. The error itself would hold its line."""
    lines: int


@dataclass(frozen=True, slots=True)
class FolderIndex:
    """Of each record of a folder its place in the shard and its line."""

    positions: array[int] = field(default_factory=lambda: array("H"))
    """Ascending."""
    numbers: array[int] = field(default_factory=lambda: array("I"))
    """Of the lines, from 1."""
    starts: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    gaps: tuple[Gap, ...] = ()
    lasting: bool = True
    """Whether the file says so: False where it could not be read to its end, which may be so no longer."""

    @classmethod
    def of(cls, folder: FolderShard, store: OutputStore) -> FolderIndex:
        """That of a folder; what cannot be read is a gap."""
        if not folder.metadata_file.exists():
            return cls()  # every image failed
        index, gaps = cls(), _Gaps()
        start = number = 0
        lasting = True
        try:
            for number, line in enumerate(store.lines(f"{folder.name}/{METADATA}"), 1):
                if number > SHARD_LIMIT:
                    gaps.note(damaged(f"{folder.metadata_file}:{number}", TOO_MANY))
                    break
                try:
                    position = _position(folder, f"{folder.metadata_file}:{number}", line)
                except OutputError as error:
                    gaps.note(error)
                else:
                    gaps.close(position)
                    index._add(position, number, Span(start, len(line)))
                start += len(line)
        except OSError as error:
            lasting = False
            gaps.note(damaged(f"{folder.metadata_file}:{number + 1}", str(error.strerror)))
        gaps.close(SHARD_LIMIT)
        return replace(index._in_order(), gaps=tuple(gaps.found), lasting=lasting)

    def _add(self, position: int, number: int, line: Span) -> None:
        self.positions.append(position)
        self.numbers.append(number)
        self.starts.append(line.start)
        self.sizes.append(line.size)

    def _in_order(self) -> FolderIndex:
        """The same by places: something else may have changed the order of the lines."""
        rows = range(len(self.positions))
        if all(self.positions[row] <= self.positions[row + 1] for row in rows[:-1]):
            return self
        ordered = FolderIndex()
        for row in sorted(rows, key=self.positions.__getitem__):
            ordered._add(self.positions[row], self.numbers[row], self.line(row))
        return ordered

    @property
    def bytes(self) -> int:
        """How many it holds."""
        columns = (self.positions, self.numbers, self.starts, self.sizes)
        told = sum(4 * len(gap.trouble) + 500 for gap in self.gaps)
        return sum(len(one) * one.itemsize for one in columns) + told + 500

    def row(self, position: int) -> int:
        """The first row at or after a place in the shard."""
        return bisect_left(self.positions, position)

    def line(self, row: int) -> Span:
        """Where the row's record lies."""
        return Span(self.starts[row], self.sizes[row])

    def gaps_in(self, start: int, stop: int) -> Iterator[Gap]:
        """Those that may hide a place between two."""
        return (gap for gap in self.gaps if gap.start < stop and start < gap.stop)


class _Gaps:
    """Collects the gaps of one file."""

    def __init__(self) -> None:
        self.found: list[Gap] = []
        self._start = self._lines = 0
        self._first = ""

    def note(self, error: OutputError) -> None:
        """Takes a line that tells no place."""
        self._first = self._first or str(error)
        self._lines += 1

    def close(self, position: int) -> None:
        """Takes the place of the next line that tells one."""
        if self._first:
            # Where lines are out of order, a place may be anywhere.
            around = (self._start, position) if self._start <= position else (0, SHARD_LIMIT)
            self.found.append(Gap(*around, self._first, self._lines))
        self._start, self._first, self._lines = position + 1, "", 0


def _position(folder: FolderShard, place: str, line: bytes) -> int:
    """The place in the shard that a line tells. Raises OutputError where it tells none."""
    begins = _NAME.match(line)
    name = begins[1].decode() if begins else parsed_record(place, line)["file_name"]
    position = folder.names.position(folder.number, name)
    if position is None:
        raise damaged(place, f"{name} is no picture of this shard")
    return position
