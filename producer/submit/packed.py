"""All shards of a job, ready to be stored: all prompts are read and checked before any is stored."""

from __future__ import annotations

import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, NamedTuple

from jobs.entry import Entry
from jobs.errors import OutputError
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.equal_lines import NotedLine
from jobs.output.job_files import JobFiles
from jobs.output.line_order import as_kept, write_order
from jobs.output.lines import line_key
from jobs.output.nested_kinds import ColumnTypes
from producer.manifest.base_request import base_request
from producer.manifest.path_names import PathNames
from producer.prompt_files.reading import Reading
from producer.reporter import QUIET, Reporter
from producer.requests.expand import EqualLine, Identified, Repeats
from producer.requests.folder_entries import Room, room_for
from producer.requests.grouping import parts
from producer.requests.prepared import Prepared

IN_MEMORY = 1 << 20
"""Bytes of packed shards, about 25,000 prompts; more go to an unnamed temporary file."""
_KEYS = 1 << 13
"""Keys of lines that are written together."""


class PackedShard(NamedTuple):
    """A packed shard's place, and how far the manifest had been read when it was full."""

    images: int
    taken: int
    """Requests of the manifest until then."""
    held: int
    """Requests among them that the output held already."""
    start: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a submission stores; the same manifest and output give the same shards."""

    prepared: Prepared
    below: int | None
    found: list[int]
    """The output's shards when it was looked at."""
    shards: list[PackedShard]
    taken: int
    held: int
    duplicates: int
    """Lines that are equal to an earlier one in all they say."""
    equal_lines: int
    """Lines that share a picture with another line of the manifest."""
    noted_lines: int
    """Lines that the output lacks, of pictures that it has or that another line asks for."""
    added_lines: int
    """Those of them whose picture it has."""
    repeats: Repeats
    reading: Reading
    json_columns: Mapping[str, str]
    """The user's columns that are written as JSON text, and why."""
    _blobs: IO[bytes]
    _skipped: IO[bytes]
    _noted: IO[bytes]
    _order: IO[bytes]
    """Of all lines, where the output held pictures."""

    @property
    def images(self) -> int:
        """In all shards."""
        return sum(shard.images for shard in self.shards)

    def room(self) -> Room:
        """Where the shards go, with those that the job's end adds. Raises as `room_for`."""
        manifest = self.prepared.manifest
        new = len(self.shards) + -(-self.noted_lines // manifest.pictures_a_shard)
        return room_for(manifest, self.prepared.output, self.found, new, self.images)

    def blob(self, shard: PackedShard) -> bytes:
        """The shard as it is stored."""
        self._blobs.seek(shard.start)
        return self._blobs.read(shard.size)

    def write_skipped(self, job_id: str, names: PathNames) -> None:
        """Writes to the output every row of prompt files that was skipped, a line each: `FILE:LINE: what`."""
        named = {path.encode(errors="backslashreplace"): names(path).encode() for path in self.reading.sha256}
        paths = re.compile(b"|".join(map(re.escape, sorted(named, key=len, reverse=True))))
        output = self.prepared.output
        self._skipped.seek(0)
        with output.store.written(JobFiles(output, job_id).skipped_rows) as lines:
            for row in self._skipped:
                lines.write(paths.sub(lambda found: named[found[0]], row))

    def write_lines(self, job_id: str) -> None:
        """Writes to the output what its records alone do not say of the lines: their order, and those that
        share a picture."""
        output = self.prepared.output
        if self.held:
            self._order.seek(0)
            write_order(output, job_id, self._order)
        if self.noted_lines:
            self._noted.seek(0)
            with output.store.written(JobFiles(output, job_id).equal_lines) as lines:
                shutil.copyfileobj(self._noted, lines)


@contextmanager
def pack(prepared: Prepared, *, below: int | None = None, reporter: Reporter = QUIET) -> Iterator[Packed]:
    """Packs what the output lacks into shards, which are gone when the context ends.

    `below`: only shards of the output with lower numbers count as held; None: all. `reporter` counts the
    images that are packed. Columns that no table holds are known only at the end: then all is packed again,
    with those as JSON text. Raises ManifestError for what is wrong in prompt files, OutputError for columns
    that no table holds beside those of the output.
    """
    as_json: frozenset[str] = frozenset()
    while True:
        with _packed(prepared, below, reporter, as_json) as packed:
            more = packed.json_columns.keys() - as_json
            if not more:
                yield packed
                return
            as_json |= more


@contextmanager
def _packed(
    prepared: Prepared, below: int | None, reporter: Reporter, as_json: frozenset[str]
) -> Iterator[Packed]:
    """The same, with the columns `as_json` as JSON text."""
    prepared.inputs.want_none()
    found, names = prepared.output.shards(), prepared.manifest.column_names()
    there = ColumnTypes(names)
    held_lines = prepared.output.held_lines(below, there.add)
    base = base_request(prepared.manifest, prepared.model)
    taken = duplicates = images = equal_lines = noted_lines = added_lines = 0
    repeats = Repeats()

    def count(_entry: Entry) -> None:
        nonlocal duplicates
        duplicates += 1

    shards: list[PackedShard] = []
    with (
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as blobs,
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as skipped,
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as noted,
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as order,
    ):

        def skip(row: str) -> None:
            skipped.write(f"{row}\n".encode(errors="backslashreplace"))

        def note(place: int, keyed: Identified) -> None:
            nonlocal equal_lines, noted_lines, added_lines
            image_id, entry = keyed
            equal_lines += type(keyed) is EqualLine
            if not held_lines.has_line(image_id, entry.id, entry.columns):
                noted_lines += 1
                added_lines += image_id in held_lines
                noted.write(f"{NotedLine(image_id, place, entry.id, entry.columns).to_json()}\n".encode())

        reading = Reading(on_skipped=skip, json_columns=as_json)
        asked = prepared.entries(count, reading, repeats)
        # What the output lacks says its place itself.
        identified = _in_order(asked, order) if held_lines.pictures else asked
        try:
            for part in parts(identified, held_lines, prepared.shard_size(below), on_left_out=note):
                taken, held = part.taken, part.held
                if part.entries:
                    entries = [entry for _, entry in part.entries]
                    paths = prepared.referenced(entries)
                    blob = encode_shard(Shard(part.places, entries, in_order=True, inputs=paths), base)
                    shards.append(PackedShard(len(entries), taken, held, blobs.tell(), len(blob)))
                    blobs.write(blob)
                    images += len(entries)
                    reporter.count(images)
        except OSError as error:
            raise OutputError(
                f"{gettempdir()}: cannot hold the packed shards ({error.strerror}): free some space "
                "there, or set TMPDIR to another folder"
            ) from None
        yield Packed(
            prepared=prepared,
            below=below,
            found=found,
            shards=shards,
            taken=taken,
            held=held,
            duplicates=duplicates,
            equal_lines=equal_lines,
            noted_lines=noted_lines,
            added_lines=added_lines,
            repeats=repeats,
            reading=reading,
            json_columns=reading.columns.beside(there) if images or noted_lines else {},
            _blobs=blobs,
            _skipped=skipped,
            _noted=noted,
            _order=order,
        )


def _in_order(asked: Iterable[Identified], order: IO[bytes]) -> Iterator[Identified]:
    """The same; the key of each line is added to `order`."""
    keys = array("Q")
    for keyed in asked:
        keys.append(line_key(keyed[0], keyed[1].id, keyed[1].columns))
        if len(keys) == _KEYS:
            order.write(as_kept(keys))
            del keys[:]
        yield keyed
    order.write(as_kept(keys))
