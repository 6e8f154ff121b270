"""Images by the records of a shard: in `layout: files`, and where a tar has no parquet.

No more is read than is shown: in `layout: files` a line begins with the name of its picture, and a tar's
index tells where the record of each image lies.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from jobs.output.files import METADATA, FolderShard
from jobs.output.output import Output
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.stored_shard import StoredShard, damaged, sound_record
from jobs.output.webdataset import TarShard
from jobs.strict_json import strict_json
from producer.serve.gallery.line import (
    Cursor,
    Line,
    line_of_failure,
    line_of_record,
    values_of_failure,
)
from producer.serve.gallery.tar_index import TarIndices
from producer.serve.gallery.wanted import Found, Wanted

_STEP: Final = 16
"""Records between two looks at the clock."""
_BACK: Final = 1_000
"""Records that are held to be looked at backwards: their files are read forwards."""
_NAME: Final = re.compile(rb'\{"file_name": "([0-9]{9,}\.[a-z]+)"')
"""How `layout: files` begins the line of a record."""


class _Raw(NamedTuple):
    """A record that was not parsed."""

    position: int
    place: str
    """As messages call it."""
    text: bytes | dict[str, Any]

    def record(self) -> dict[str, Any]:
        return self.text if isinstance(self.text, dict) else parsed_record(self.place, self.text)


class RecordLines:
    """Reads the records of one output's shards."""

    def __init__(self, output: Output, indices: TarIndices) -> None:
        self._output, self._indices = output, indices

    def lines(self, stored: StoredShard, shard: int, wanted: Wanted) -> Found:
        """The images that are wanted. Raises OutputError where the shard is damaged."""
        if wanted.filter.failed:
            return self._failures(stored, wanted)
        raw = self._raw(stored, shard, wanted.start, wanted.stop)
        if wanted.last:
            return _backwards(raw, shard, wanted)
        lines: list[Line] = []
        for number, one in enumerate(raw):
            # Some are looked at however late it is: a search goes on in each piece.
            late = number > 0 and number % _STEP == 0 and wanted.late()
            if len(lines) == wanted.count or late:
                return Found(lines, one.position)
            record = one.record()
            if wanted.filter.takes(record):
                lines.append(line_of_record(Cursor(shard, one.position), record))
        return Found(lines)

    def records(self, stored: StoredShard, shard: int, start: int) -> Iterator[tuple[Cursor, dict[str, Any]]]:
        """The records from a place on, each with its own. Raises OutputError where the shard is damaged."""
        for one in self._raw(stored, shard, start, SHARD_LIMIT):
            yield Cursor(shard, one.position), one.record()

    def record(self, stored: StoredShard, place: Cursor) -> dict[str, Any] | None:
        """The record of the picture there; None where there is none."""
        raw = self._raw(stored, place.shard, place.position, place.position + 1)
        return next((one.record() for one in islice(raw, 1)), None)

    def _failures(self, stored: StoredShard, wanted: Wanted) -> Found:
        taken = [
            failure
            for failure in stored.failures()
            if wanted.start <= failure.position < wanted.stop
            and wanted.filter.takes(values_of_failure(failure))
        ]
        more = len(taken) > wanted.count
        if wanted.last:
            lines = [line_of_failure(failure) for failure in taken[-wanted.count :]]
            return Found(lines, lines[0].place.position if more else None)
        lines = [line_of_failure(failure) for failure in taken[: wanted.count]]
        return Found(lines, taken[wanted.count].position if more else None)

    def _raw(self, stored: StoredShard, shard: int, start: int, stop: int) -> Iterator[_Raw]:
        """The records of the places from `start` up to `stop`, in their order."""
        if isinstance(stored, FolderShard):
            yield from self._of_folder(stored, shard, start, stop)
        elif isinstance(stored, TarShard) and not stored.store.is_remote:
            index = self._indices.of(stored)
            rows = range(index.row(start), index.row(stop))
            texts = stored.read_at(map(index.record, rows))
            for row, text in zip(rows, texts, strict=True):
                yield _Raw(index.positions[row], f"{stored.label}: row {row}", text)
        else:
            for record in stored.records():
                position = self._output.names.position(shard, record["file_name"])
                if position is not None and start <= position < stop:
                    yield _Raw(position, stored.label, record)

    def _of_folder(self, folder: FolderShard, shard: int, start: int, stop: int) -> Iterator[_Raw]:
        if not folder.metadata_file.exists():
            return  # every image failed
        names = self._output.names
        try:
            for number, line in enumerate(self._output.store.lines(f"{folder.name}/{METADATA}"), 1):
                place = f"{folder.metadata_file}:{number}"
                begins = _NAME.match(line)
                raw = _Raw(-1, place, line)
                name = begins[1].decode() if begins else raw.record()["file_name"]
                position = names.position(shard, name)
                if position is None or position < start:
                    continue
                if position >= stop:
                    return
                yield raw._replace(position=position)
        except OSError as error:
            raise damaged(str(folder.metadata_file), str(error.strerror)) from None


def parsed_record(place: str, text: bytes) -> dict[str, Any]:
    """The record that a text is. Raises OutputError where it is none; `place`: as messages call it."""
    try:
        said = strict_json(text)
    except ValueError as error:
        raise damaged(place, f"not JSON ({error})") from None
    return sound_record(place, said)


def _backwards(raw: Iterator[_Raw], shard: int, wanted: Wanted) -> Found:
    """The last of the records that are wanted."""
    left = deque(raw, wanted.count if wanted.filter.is_empty else max(wanted.count, _BACK))
    first = left[0].position if len(left) == left.maxlen else None
    lines: list[Line] = []
    looked = 0
    while left:
        late = looked > 0 and looked % _STEP == 0 and wanted.late()
        if len(lines) == wanted.count or late:
            return Found(lines[::-1], left[-1].position + 1)
        one = left.pop()
        record = one.record()
        if wanted.filter.takes(record):
            lines.append(line_of_record(Cursor(shard, one.position), record))
        looked += 1
    return Found(lines[::-1], first)
