"""Images by the records of a shard: in `layout: files`, and where a tar has no parquet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from jobs.errors import OutputError
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.stored_shard import StoredShard
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.line import Cursor, Line, line_of_failure, line_of_record, values_of_failure
from producer.serve.gallery.raw_record import RawRecord
from producer.serve.gallery.shard_indices import ShardIndices
from producer.serve.gallery.shard_records import Places, ShardRecords
from producer.serve.gallery.wanted import Found, Wanted

_STEP: Final = 16
"""Records between two looks at the clock."""
_BACK: Final = 1_000
"""Records that are held to be looked at backwards: their files are read forwards."""


class RecordLines:
    """Reads the records of one output's shards. What is damaged is noted, and hides nothing else; all methods
    raise OutputError where the store refuses a shard."""

    def __init__(self, output: Output, indices: ShardIndices) -> None:
        self._output, self._records = output, ShardRecords(output, indices)

    def lines(self, stored: StoredShard, shard: int, wanted: Wanted) -> Found:
        """The images that are wanted."""
        damage = Damage(self._output)
        if wanted.filter.failed:
            return self._failures(stored, wanted, damage)
        if wanted.last:
            most = wanted.count if wanted.filter.is_empty else max(wanted.count, _BACK)
            raw = self._records.raw(stored, Places(wanted.start, wanted.stop, most), damage)
            return _backwards(deque(raw, most), shard, wanted, damage)
        raw = self._records.raw(stored, Places(wanted.start, wanted.stop), damage)
        lines: list[Line] = []
        for number, one in enumerate(raw):
            # Some are looked at however late it is: a search goes on in each piece.
            late = number > 0 and number % _STEP == 0 and wanted.late()
            if len(lines) == wanted.count or late:
                return Found(lines, one.position, damage.told)
            record = _sound(one, damage)
            if record is not None and wanted.filter.takes(record):
                lines.append(line_of_record(Cursor(shard, one.position), record))
        return Found(lines, damage=damage.told)

    def records(
        self, stored: StoredShard, shard: int, start: int, damage: Damage
    ) -> Iterator[tuple[Cursor, dict[str, Any]]]:
        """The records from a place on, each with its own."""
        for one in self._records.raw(stored, Places(start, SHARD_LIMIT), damage):
            record = _sound(one, damage)
            if record is not None:
                yield Cursor(shard, one.position), record

    def record(self, stored: StoredShard, place: Cursor, damage: Damage) -> dict[str, Any] | None:
        """The record of the picture there; None where there is none, or damage hides it."""
        raw = self._records.raw(stored, Places(place.position, place.position + 1), damage)
        return next((_sound(one, damage) for one in islice(raw, 1)), None)

    def failures(self, stored: StoredShard, damage: Damage) -> Iterator[Failure]:
        """What failed."""
        return self._records.failures(stored, damage)

    def _failures(self, stored: StoredShard, wanted: Wanted, damage: Damage) -> Found:
        taken = [
            failure
            for failure in self._records.failures(stored, damage)
            if wanted.start <= failure.position < wanted.stop
            and wanted.filter.takes(values_of_failure(failure))
        ]
        more = len(taken) > wanted.count
        if wanted.last:
            lines = [line_of_failure(failure) for failure in taken[-wanted.count :]]
            return Found(lines, lines[0].place.position if more else None, damage.told)
        lines = [line_of_failure(failure) for failure in taken[: wanted.count]]
        return Found(lines, taken[wanted.count].position if more else None, damage.told)


def _sound(raw: RawRecord, damage: Damage) -> dict[str, Any] | None:
    """The record; None for what is none, which is noted."""
    try:
        return raw.record()
    except OutputError as error:
        damage.note(error)
        return None


def _backwards(left: deque[RawRecord], shard: int, wanted: Wanted, damage: Damage) -> Found:
    """The last of the records that are wanted; `left`: those before them in the shard."""
    first = left[0].position if len(left) == left.maxlen else None
    lines: list[Line] = []
    looked = 0
    while left:
        late = looked > 0 and looked % _STEP == 0 and wanted.late()
        if len(lines) == wanted.count or late:
            return Found(lines[::-1], left[-1].position + 1, damage.told)
        one = left.pop()
        record = _sound(one, damage)
        if record is not None and wanted.filter.takes(record):
            lines.append(line_of_record(Cursor(shard, one.position), record))
        looked += 1
    return Found(lines[::-1], first, damage.told)
