"""The records of a shard in their order, from any place on, however damaged it is.

No more is read than is asked for: in `layout: files` a line begins with the name of its picture, and a tar's
index tells where the record of each image lies. What cannot be read is noted and passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jobs.errors import OutputError, OutputRefused
from jobs.output.files import METADATA, FolderShard
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_names import SHARD_LIMIT
from jobs.output.stored_shard import FAILURES, StoredShard, damaged, sound_failure, sound_record
from jobs.output.tar_file import DamagedTar, TarReader
from jobs.output.webdataset import TarShard
from jobs.strict_json import strict_json
from producer.serve.gallery.damage import Damage
from producer.serve.gallery.tar_index import TarIndices

_NAME: Final = re.compile(rb'\{"file_name": "([0-9]{9,}\.[a-z]+)"')
"""How `layout: files` begins the line of a record."""
_TOO_MANY: Final = "more lines than a shard has images"


class RawRecord(NamedTuple):
    """A record that was not parsed."""

    position: int
    """In its shard."""
    place: str
    """As messages call it."""
    text: bytes | dict[str, Any]

    def record(self) -> dict[str, Any]:
        """It, parsed. Raises OutputError for what is none."""
        return self.text if isinstance(self.text, dict) else parsed_record(self.place, self.text)


class Places(NamedTuple):
    """Places of one shard."""

    start: int
    stop: int
    """The first after them."""


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """Reads the shards of one output; threads may share it."""

    output: Output
    indices: TarIndices

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
                    raise damaged(place, _TOO_MANY)
                with _noted(damage):
                    yield sound_failure(place, _json(place, line))

    def _of_folder(self, folder: FolderShard, places: Places, damage: Damage) -> Iterator[RawRecord]:
        wrong: list[OutputError] = []  # lines that tell no place, since the last one that did
        after = 0  # the place after that one

        def note_up_to(position: int) -> None:
            for error in wrong:
                if after < places.stop and places.start < position:
                    damage.note(error)
            wrong.clear()

        for raw in self._lines_of(folder):
            if isinstance(raw, OutputError):
                wrong.append(raw)
                continue
            note_up_to(raw.position)
            if raw.position >= places.stop:
                return
            if raw.position >= places.start:
                yield raw
            after = raw.position + 1
        note_up_to(SHARD_LIMIT)

    def _lines_of(self, folder: FolderShard) -> Iterator[RawRecord | OutputError]:
        """The records of a folder, and what is wrong with a line that tells no place."""
        file = folder.metadata_file
        if not file.exists():
            return  # every image failed
        number = 0
        try:
            for number, line in enumerate(self.output.store.lines(f"{folder.name}/{METADATA}"), 1):
                raw = RawRecord(-1, f"{file}:{number}", line)
                if number > SHARD_LIMIT:
                    yield damaged(raw.place, _TOO_MANY)
                    return
                begins = _NAME.match(line)
                try:
                    name = begins[1].decode() if begins else raw.record()["file_name"]
                except OutputError as error:
                    yield error
                    continue
                position = folder.names.position(folder.number, name)
                if position is None:
                    yield damaged(raw.place, f"{name} is no picture of this shard")
                else:
                    yield raw._replace(position=position)
        except OSError as error:
            yield damaged(f"{file}:{number + 1}", str(error.strerror))

    def _of_tar(self, tar: TarShard, places: Places) -> Iterator[RawRecord]:
        index = self.indices.of(tar)
        rows = range(index.row(places.start), index.row(places.stop))
        for row, text in zip(rows, tar.read_at(map(index.record, rows)), strict=True):
            yield RawRecord(index.positions[row], f"{tar.label}: row {row}", text)
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


def parsed_record(place: str, text: bytes) -> dict[str, Any]:
    """The record that a text is. Raises OutputError where it is none; `place`: as messages call it."""
    return sound_record(place, _json(place, text))


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


def _json(place: str, text: bytes) -> object:
    try:
        return strict_json(text)
    except ValueError as error:
        raise damaged(place, f"not JSON ({error})") from None
