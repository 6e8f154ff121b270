"""The records of a shard in their order, from any place on, however damaged it is.

No more is read than is asked for: in `layout: files` a line begins with the name of its picture, and a tar's
index tells where the record of each image lies. What cannot be read is noted and passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from jobs.errors import OutputError, OutputRefused
from jobs.output.files import METADATA, FolderShard
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.stored_shard import FAILURES, Span, StoredShard, damaged, sound_failure
from jobs.output.tar_file import DamagedTar, TarReader
from jobs.output.webdataset import TarShard
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.folder_index import TOO_MANY, Gap
from producer.serve.gallery.raw_record import RawRecord, parsed
from producer.serve.gallery.shard_indices import ShardIndices


class Places(NamedTuple):
    """Places of one shard."""

    start: int
    stop: int
    """The first after them."""
    most: int = SHARD_LIMIT
    """Only so many of the last records may be wanted."""


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """Reads the shards of one output; threads may share it."""

    output: Output
    indices: ShardIndices

    def raw(self, stored: StoredShard, places: Places, damage: Damage) -> Iterator[RawRecord]:
        """The records of these places. What may hide one of them is noted as damage. Raises what the store
        says where it refuses the shard or gives no answer."""
        if isinstance(stored, FolderShard):
            yield from self._of_folder(stored, places, damage)
            return
        assert isinstance(stored, TarShard)
        with _noted(damage):
            yield from _of_remote(stored, places) if stored.store.is_remote else self._of_tar(stored, places)

    def failures(self, stored: StoredShard, damage: Damage) -> Iterator[Failure]:
        """What failed, in the order of its positions. Raises as `raw`."""
        with _noted(damage):
            for number, (place, line) in enumerate(self._failure_lines(stored)):
                if number == SHARD_LIMIT:
                    raise damaged(place, TOO_MANY)
                with _noted(damage):
                    yield sound_failure(place, parsed(place, line))

    def _of_folder(self, folder: FolderShard, places: Places, damage: Damage) -> Iterator[RawRecord]:
        index = self.indices.of_folder(folder, self.output.store)
        rows = range(index.row(places.start), index.row(places.stop))[-places.most :]
        first = places.start if len(rows) < places.most else index.positions[rows[0]]
        gaps = deque(index.gaps_in(first, places.stop))
        try:
            lines = self._lines_at(folder, map(index.line, rows))
            # Without rows nothing is opened: there is no file where every image failed.
            for row, text in zip(rows, lines, strict=False):
                position = index.positions[row]
                while gaps and gaps[0].stop <= position:
                    _note(gaps.popleft(), damage)
                yield RawRecord(position, f"{folder.metadata_file}:{index.numbers[row]}", text)
        except OSError as error:
            damage.note(damaged(str(folder.metadata_file), str(error.strerror)))
        for gap in gaps:
            _note(gap, damage)

    def _lines_at(self, folder: FolderShard, spans: Iterable[Span]) -> Iterator[bytes]:
        """What lies there in the file of records."""
        with self.output.store.opened(f"{folder.name}/{METADATA}") as file:
            for span in spans:
                yield file.read_at(*span)

    def _of_tar(self, tar: TarShard, places: Places) -> Iterator[RawRecord]:
        index = self.indices.of_tar(tar)
        rows = range(index.row(places.start), index.row(places.stop))[-places.most :]
        for row, text in zip(rows, tar.read_at(map(index.record, rows)), strict=True):
            position = index.positions[row]
            yield RawRecord(position, f"{tar.label}: {tar.names.key(tar.number, position)}.json", text)
        if index.ends_before(places.stop):
            raise OutputError(index.trouble)

    def _failure_lines(self, stored: StoredShard) -> Iterator[tuple[str, bytes]]:
        """The lines that tell what failed, each with its place for messages."""
        if isinstance(stored, TarShard):
            yield from _failures_of_tar(stored)
            return
        assert isinstance(stored, FolderShard)
        file, number = stored.failures_file, 0
        if not file.exists():
            return
        try:
            for number, line in enumerate(self.output.store.lines(f"{stored.name}/{FAILURES}"), 1):
                yield f"{file}:{number}", line
        except OSError as error:
            raise damaged(f"{file}:{number + 1}", str(error.strerror)) from None


@contextmanager
def _noted(damage: Damage) -> Iterator[None]:
    """Notes what is damaged, and goes on after the block. What a store refuses is not damaged."""
    try:
        yield
    except OutputRefused:
        raise
    except OutputError as error:
        damage.note(error)


def _note(gap: Gap, damage: Damage) -> None:
    damage.note(OutputError(gap.trouble), gap.lines)


def _of_remote(tar: TarShard, places: Places) -> Iterator[RawRecord]:
    for record in tar.records():
        position = tar.names.position(tar.number, record["file_name"])
        if position is not None and places.start <= position < places.stop:
            yield RawRecord(position, tar.label, record)


def _failures_of_tar(tar: TarShard) -> Iterator[tuple[str, bytes]]:
    try:
        with tar.store.opened(tar.name) as file:
            reader = TarReader(file)
            first = next(reader.members(), None)
            lines = reader.read(first).splitlines() if first is not None and first.name == FAILURES else []
    except DamagedTar as error:
        raise damaged(tar.label, str(error)) from None
    place = f"{tar.label}: {FAILURES}"
    yield from ((f"{place}:{number}", line) for number, line in enumerate(lines, 1))
