"""All shards of a job, ready to be stored: all prompts are read and checked before any is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, NamedTuple

from jobs.errors import OutputError
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.durable import written_atomically
from jobs.output.nested_kinds import ColumnTypes
from jobs.request import Entry
from producer.manifest.base_request import base_request
from producer.manifest.path_names import PathNames
from producer.prompt_files.sources import Reading
from producer.reporter import QUIET, Reporter
from producer.requests.folder_entries import entries_remark
from producer.requests.grouping import parts
from producer.requests.prepared import Prepared

IN_MEMORY = 1 << 20
"""Bytes of packed shards, about 25,000 prompts; more go to an unnamed temporary file."""


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
    reading: Reading
    json_columns: Mapping[str, str]
    """The user's columns that are written as JSON text, and why."""
    _blobs: IO[bytes]
    _skipped: IO[bytes]

    @property
    def images(self) -> int:
        """In all shards."""
        return sum(shard.images for shard in self.shards)

    @property
    def remark(self) -> str:
        """That the output's folder gets too many entries for the hub; empty when it does not."""
        layout = self.prepared.manifest.layout
        return entries_remark(layout, len(self.found), len(self.shards), self.images)

    def blob(self, shard: PackedShard) -> bytes:
        """The shard as it is stored."""
        self._blobs.seek(shard.start)
        return self._blobs.read(shard.size)

    def write_skipped(self, file: Path, names: PathNames) -> None:
        """Writes every row of prompt files that was skipped, a line each: `FILE:LINE: what`."""
        named = {path.encode(errors="backslashreplace"): names(path).encode() for path in self.reading.sha256}
        paths = re.compile(b"|".join(map(re.escape, sorted(named, key=len, reverse=True))))
        self._skipped.seek(0)
        with written_atomically(file) as lines:
            for row in self._skipped:
                lines.write(paths.sub(lambda found: named[found[0]], row))


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
    found, names = prepared.output.shards(), prepared.manifest.column_names()
    there = ColumnTypes(names)
    held_ids = prepared.output.held_image_ids(below, there.add if names else None)
    base = base_request(prepared.manifest, prepared.model)
    taken = duplicates = images = 0

    def count(_entry: Entry) -> None:
        nonlocal duplicates
        duplicates += 1

    shards: list[PackedShard] = []
    with (
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as blobs,
        SpooledTemporaryFile(IN_MEMORY, prefix="imagemill-") as skipped,
    ):

        def skip(row: str) -> None:
            skipped.write(f"{row}\n".encode(errors="backslashreplace"))

        reading = Reading(on_skipped=skip, json_columns=as_json)
        identified = prepared.entries(count, reading)
        try:
            for part in parts(identified, held_ids, prepared.manifest.shard_size):
                taken, held = part.taken, part.held
                if part.entries:
                    entries = [entry for _, entry in part.entries]
                    blob = encode_shard(Shard(range(images, images + len(entries)), entries), base)
                    shards.append(PackedShard(len(entries), taken, held, blobs.tell(), len(blob)))
                    blobs.write(blob)
                    images += len(entries)
                    reporter.count(images)
        except OSError as error:
            raise OutputError(
                f"{gettempdir()}: cannot hold the packed shards ({error.strerror}): free some space "
                "there, or set TMPDIR to another folder"
            ) from None
        json_columns = reading.columns.beside(there) if images else {}
        yield Packed(
            prepared, below, found, shards, taken, held, duplicates, reading, json_columns, blobs, skipped
        )
