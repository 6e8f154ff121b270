"""`layout: files`, a Hugging Face imagefolder: a shard is a folder of pictures and one metadata.jsonl.

    OUT/00003/000030000.png … metadata.jsonl     it appears by one rename, and never changes (OUT/149/421/ in
                                                 an output of many shards: `shard_names`)
    OUT/00003/.failures.jsonl                    what failed in it; hidden, so dataset readers skip it
    OUT/00003/.repaired.jsonl                    which places a repair emptied

Failures are inside the folder so that one rename commits pictures, metadata and failures together. If they
were outside, a late attempt could leave its own list next to another attempt's pictures.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.failpoints import failpoint
from jobs.output.durable import fsync_folder, make_folder_within, write_atomically
from jobs.output.metadata import Failure
from jobs.output.shard_names import ShardNames
from jobs.output.store import Stage
from jobs.output.stored_shard import (
    FAILURES,
    Span,
    damaged,
    sound_failure,
    sound_record,
)
from jobs.plain_file import open_plain, plain_lines, read_plain
from jobs.strict_json import strict_json

METADATA = "metadata.jsonl"
"""The file next to a shard's pictures that Hugging Face's imagefolder reads."""


@dataclass(frozen=True, slots=True)
class FolderShard:
    """A shard as a folder of `output`."""

    output: Path
    number: int
    names: ShardNames

    @property
    def name(self) -> str:
        return self.names.name(self.number)

    @property
    def path(self) -> Path:
        return self.output / self.name

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def metadata_file(self) -> Path:
        return self.path / METADATA

    @property
    def failures_file(self) -> Path:
        return self.path / FAILURES

    def key(self, position: int) -> str:
        return self.names.key(self.number, position)

    def committed(self) -> bool:
        """Whether the shard is there. One in which every image failed is a folder without pictures."""
        return self.metadata_file.is_file() or self.failures_file.is_file()

    def size(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir())

    def records(self) -> Iterator[dict[str, Any]]:
        return (record for _, record in self.located())

    def located(self) -> Iterator[tuple[Span, dict[str, Any]]]:
        if not self.metadata_file.exists() and self.failures_file.exists():
            return
        for place, span, record in _json_lines(self.metadata_file):
            yield span, sound_record(place, record)

    def record_at(self, span: Span) -> dict[str, Any]:
        place = f"{self.metadata_file}: byte {span.start}"
        try:
            with open_plain(self.metadata_file) as file:
                line = os.pread(file.fileno(), span.size, span.start)
            return sound_record(place, strict_json(line))
        except (OSError, ValueError) as error:
            raise damaged(place, f"not the line of JSON that was there ({error})") from None

    def failures(self) -> list[Failure]:
        if not self.failures_file.exists():
            return []
        return [sound_failure(place, record) for place, _, record in _json_lines(self.failures_file)]

    def held_records(self) -> Iterator[dict[str, Any]]:
        names = {file.name for file in self.path.iterdir()}
        return (record for record in self.records() if record["file_name"] in names)

    def pictures(self, file_names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(file_names):
            with contextlib.suppress(OSError):
                yield name, read_plain(self.path / name)

    def check_writable(self, folder: Path) -> None:
        """A rename is all it takes."""

    def commit(
        self, images: Path, records: Sequence[Mapping[str, Any]], failures: Sequence[Failure], stage: Stage
    ) -> None:
        if records:
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            write_atomically(images / self.metadata_file.name, lines.encode())
        if failures:
            lines = "".join(f"{failure.to_json()}\n" for failure in failures)
            write_atomically(images / self.failures_file.name, lines.encode())
        failpoint("before commit", self.path)
        if self.names.nested:
            make_folder_within(self.path.parent)
        try:
            images.rename(self.path)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path)) from None
            raise
        failpoint("after commit", self.path)
        for folder in {self.path.parent, self.output}:
            fsync_folder(folder)

    def complete(self) -> None:
        """The rename was all."""


def _json_lines(file: Path) -> Iterator[tuple[str, Span, object]]:
    """`file:line`, where that is, and the JSON value there, for each line."""
    start = number = 0
    try:
        for number, line in enumerate(plain_lines(file), 1):
            place = f"{file}:{number}"
            try:
                record = strict_json(line)
            except ValueError as error:
                raise damaged(place, f"not a line of JSON ({error})") from None
            yield place, Span(start, len(line)), record
            start += len(line)
    except OSError as error:
        raise damaged(f"{file}:{number + 1}", str(error.strerror)) from None
