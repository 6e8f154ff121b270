"""An output as a gallery reads it: pages of images from any place on, single pictures, records.

Page one asks for shard 0 and lists nothing. Everything else reads the one or two shards that it shows; a
search reads on until it has a page, or has taken long enough, and says how far it came.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from jobs.errors import OutputError
from jobs.output.files import FolderShard
from jobs.output.metadata import Failure
from jobs.output.output import PRIVATE, REPORT, Output
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.stored_shard import StoredShard, damaged
from jobs.output.webdataset import TarShard
from jobs.strict_json import strict_json
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.known_columns import KnownColumns
from producer.serve.gallery.line import START, Cursor, Line
from producer.serve.gallery.raw_record import parsed_record
from producer.serve.gallery.record_lines import RecordLines
from producer.serve.gallery.shard_indices import ShardIndices
from producer.serve.gallery.shard_list import ShardList
from producer.serve.gallery.table_lines import table_lines
from producer.serve.gallery.wanted import EVERY, Found, Wanted

PAGE: Final = 60
"""Images on a page: rows of 2, 3, 4, 5 or 6 are full."""
BUDGET: Final = 0.1
"""Seconds after which a search looks at no further shard."""
_LEAST_SHARDS: Final = 6
"""That a page without conditions takes whatever the time: one of small shards is full, too."""
_MOST_REPORT: Final = 4 << 20
"""Bytes of a job.json that is read for its number of images: it may have all prompts in it."""
_MOST_TROUBLES: Final = 5
_END: Final = 1024
"""Zero bytes at the end of every tar."""
_MOST_MISSING: Final = 200
"""Shards of which is remembered that they are not there yet: about as many are rendered at a time at most."""
_WHOLE: Final = Wanted(count=SHARD_LIMIT)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some images of an output, in their order."""

    lines: Sequence[Line]
    next: Cursor | None
    """Where to go on: after them, or before them where images before a place were asked for; None: there is
    nothing."""
    complete: bool
    """Whether a page is full, or nothing is left: False where a search stopped because of the time."""
    troubles: Sequence[str] = ()
    """What could not be read, and was passed over."""
    missing: Sequence[int] = ()
    """Numbers of shards that are not there, though others are that come after them: while a job renders, they
    come later."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much an output holds, as far as that is known."""

    images: int | None
    """Pictures that are there; None where nothing tells."""
    last: int
    """The number of the last shard; -1 without any."""
    shards: int
    exact: bool
    """Whether the number of images is that of a finished job's report."""


@dataclass(slots=True)
class GalleryOutput:
    """One output; threads may share it."""

    output: Output
    indices: ShardIndices
    clock: Callable[[], float] = time.monotonic
    shards: ShardList = field(init=False)
    known: KnownColumns = field(init=False)
    _records: RecordLines = field(init=False)
    _counts: Mapping[int, int] = field(init=False, default_factory=dict)
    """Images of the first shard and of the last one, as they were counted last."""

    def __post_init__(self) -> None:
        self.shards = ShardList(self.output)
        self._records = RecordLines(self.output, self.indices)
        self.known = KnownColumns(self.output, self.shards, self._records)

    def page(
        self, start: Cursor = START, taken: Filter = EVERY, count: int = PAGE, budget: float = BUDGET
    ) -> Piece:
        """Up to `count` images from a place on. Raises OutputError where the output itself cannot be read."""
        ends = self.clock() + budget
        lines: list[Line] = []
        troubles: list[str] = []
        place: Cursor | None = start
        missing: list[int] = []
        looked = 0
        while place is not None:
            shard = self.shards.following(place.shard)
            if shard is None:
                place = None
                break
            if shard != place.shard:
                missing += range(max(place.shard, shard - _MOST_MISSING), shard)
                place = Cursor(shard, 0)
            left = count - len(lines)
            wanted = Wanted(
                start=place.position,
                count=left,
                filter=taken,
                late=lambda: not taken.is_empty and self.clock() > ends,
            )
            found = self._sound(shard, wanted, troubles)
            lines += found.lines
            place = Cursor(shard + 1, 0) if found.reached is None else Cursor(shard, found.reached)
            looked += 1
            enough = looked >= _LEAST_SHARDS or not taken.is_empty
            if len(lines) == count or (enough and self.clock() > ends):
                break
        return Piece(lines, place, place is None or len(lines) == count, troubles, missing[-_MOST_MISSING:])

    def late(self, places: Sequence[Cursor], *, afresh: bool) -> Iterator[tuple[Cursor, Piece]]:
        """The images from each of these places to the end of its shard, up to a page of them, of those shards
        that came since; raises as `page`. `afresh`: whether they are listed now."""
        there = self.shards.listed_among((place.shard for place in places), afresh=afresh)
        left = PAGE
        for place in places:
            if place.shard not in there or left == 0:
                continue
            troubles: list[str] = []
            found = self._sound(place.shard, Wanted(start=place.position, count=left), troubles)
            left -= len(found.lines)
            following = None if found.reached is None else Cursor(place.shard, found.reached)
            yield place, Piece(found.lines, following, complete=True, troubles=troubles)

    def before(
        self, place: Cursor, taken: Filter = EVERY, count: int = PAGE, budget: float = BUDGET
    ) -> Piece:
        """Up to `count` images that come before a place, in their order. Raises as `page`."""
        ends = self.clock() + budget
        lines: list[Line] = []
        troubles: list[str] = []
        stop: Cursor | None = place
        looked = 0
        while stop is not None:
            if stop.position == 0 or not self.output.committed(stop.shard):
                shard = self.shards.preceding(stop.shard)
                stop = None if shard is None else Cursor(shard, SHARD_LIMIT)
                continue
            wanted = Wanted(
                stop=stop.position,
                count=count - len(lines),
                filter=taken,
                last=True,
                late=lambda: not taken.is_empty and self.clock() > ends,
            )
            found = self._sound(stop.shard, wanted, troubles)
            lines[:0] = found.lines
            stop = Cursor(stop.shard, 0 if found.reached is None else found.reached)
            looked += 1
            enough = looked >= _LEAST_SHARDS or not taken.is_empty
            if stop == START:
                stop = None
            if len(lines) == count or (enough and self.clock() > ends):
                break
        return Piece(lines, stop, stop is None or len(lines) == count, troubles)

    def absence(self) -> str:
        """Why this is no output of imagemill, or none any more; empty where it is one. Raises as `page`."""
        output = self.output
        if not output.in_bucket and not output.path.is_dir():
            return f"{output.label}: there is no such folder on this machine: was it moved or removed?"
        begun = output.store.exists(REPORT) or any(True for _ in output.store.list(PRIVATE))
        if begun or self.shards.following(0) is not None:  # asked last: it may list them
            return ""
        return (
            f"{output.label}: is no output of imagemill, or none any more: it has no shard, no {REPORT} and "
            f"no {PRIVATE}"
        )

    def record(self, place: Cursor) -> dict[str, Any] | None:
        """The record of the picture there; None where there is none. Raises OutputError."""
        if not self.output.committed(place.shard):
            return None
        damage = Damage(self.output)
        record = self._records.record(self.output.stored(place.shard), place, damage)
        if record is None and damage.told and self.failure(place) is None:
            raise OutputError(damage.told)
        return record

    def records(self, shard: int, start: int, damage: Damage) -> Iterator[tuple[Cursor, dict[str, Any]]]:
        """The records of a committed shard from a place on. Raises OutputError where its store refuses it."""
        return self._records.records(self.output.stored(shard), shard, start, damage)

    def failure(self, place: Cursor) -> Failure | None:
        """What failed there; None where nothing did. Raises OutputError."""
        if not self.output.committed(place.shard):
            return None
        damage = Damage(self.output)
        failures = self._records.failures(self.output.stored(place.shard), damage)
        found = next((one for one in failures if one.position == place.position), None)
        if found is None and damage.told:
            raise OutputError(damage.told)
        return found

    def picture(self, place: Cursor) -> tuple[bytes, dict[str, Any]] | None:
        """The file of the picture there, and its record; None where there is none. Raises OutputError.

        A file that is not the one of its record is refused: links are followed, wherever they lead.
        """
        if not self.output.committed(place.shard):
            return None
        stored = self.output.stored(place.shard)
        if isinstance(stored, TarShard):
            index = self.indices.of_tar(stored)
            row = index.at(place.position)
            if row is None:
                if index.ends_before(place.position + 1):
                    raise OutputError(index.trouble)
                return None
            data, text = stored.read_at([index.picture(row), index.record(row)])
            record = parsed_record(f"{stored.label}: {self.output.names.key(*place)}.json", text)
        else:
            found = self.record(place)
            if found is None:
                return None
            record = found
            data = next((data for _, data in stored.pictures([record["file_name"]])), b"")
        file = f"{stored.label}/{record['file_name']}"
        if not data:
            raise damaged(file, "there is no such file, or it is empty")
        if hashlib.sha256(data).hexdigest() != record.get("sha256"):
            raise damaged(file, "not the picture of its record: its SHA-256 is another")
        return data, record

    def stored_name(self, place: Cursor, file_name: str) -> str:
        """What a picture's file is called in the output, as messages and commands name it."""
        stored = self.output.stored(place.shard)
        return f"{stored.name}/{file_name}" if isinstance(stored, FolderShard) else file_name

    def in_folder(self, place: Cursor) -> bool:
        """Whether the picture is a file of its own."""
        return isinstance(self.output.stored(place.shard), FolderShard)

    def extent(self, *, reported: bool = True) -> Extent:
        """How much there is; lists the shards. `reported`: whether job.json knows it: while a job renders it
        does not."""
        listed = self.shards.listed()
        images = self._reported() if reported else None
        exact = images is not None
        if images is None and listed:
            images = self._estimated(listed)
        return Extent(images, listed[-1] if listed else -1, len(listed), exact)

    def _reported(self) -> int | None:
        """The number of images that job.json tells."""
        try:
            if self.output.store.size(REPORT) > _MOST_REPORT:
                return None
            images = strict_json(self.output.store.read(REPORT, _MOST_REPORT))["output"]["images"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return images if type(images) is int and images >= 0 else None

    def _estimated(self, listed: Sequence[int]) -> int | None:
        """By the images of the first shard and of the last."""
        held = self._counts
        try:
            # A shard never changes: while a job renders, only its last one is counted at each look.
            self._counts = {
                shard: held[shard] if shard in held else len(self._found(shard, _WHOLE).lines)
                for shard in (listed[0], listed[-1])
            }
        except OutputError:
            return None
        counts = [*self._counts.values()]
        return counts[0] if len(listed) == 1 else (len(listed) - 1) * max(counts) + min(counts)

    def _found(self, shard: int, wanted: Wanted) -> Found:
        stored: StoredShard = self.output.stored(shard)
        if isinstance(stored, TarShard):
            found = table_lines(stored, wanted)
            if found is not None:
                return found if wanted.start else replace(found, damage=self._cut(stored))
        return self._records.lines(stored, shard, wanted)

    def _cut(self, tar: TarShard) -> str:
        """That a tar, whose table tells what was in it, is cut off; empty as a rule."""
        if tar.store.is_remote:
            return ""  # an object is there whole
        damage = Damage(self.output)
        with tar.store.opened(tar.name) as file:
            end = file.read_at(max(0, file.size - _END), _END)
        if any(end) or len(end) < _END:
            damage.note(damaged(tar.label, f"is cut off: its {file.size:,} bytes do not end as a tar does"))
        return damage.told

    def _sound(self, shard: int, wanted: Wanted, troubles: list[str]) -> Found:
        """The same; what is wrong with the shard is added to `troubles`."""
        try:
            found = self._found(shard, wanted)
        except OutputError as error:  # its store refuses it
            found = Found((), damage=str(error))
        if found.damage and len(troubles) < _MOST_TROUBLES:
            troubles.append(found.damage)
        return found
