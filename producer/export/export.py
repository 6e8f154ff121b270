"""`imagemill export`: an output or a parquet as a dataset in another form, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import click

from jobs.errors import JobError, OutputError
from jobs.output.arrow_columns import check_pyarrow
from jobs.output.card import Contents, dataset_card, is_pattern
from jobs.output.compact_counter import CompactCounter
from jobs.output.licences import read_licences
from jobs.output.output import Output
from jobs.settings import Settings
from jobs.wording import counted
from producer.export.exact_records import json_column
from producer.export.parquet import write_pictures, write_records
from producer.export.parquet_source import open_parquet
from producer.export.pictures import OutputSource
from producer.export.shards import write_shards
from producer.export.source import PictureSource, Record, check_exportable
from producer.export.target import appearing, check_free
from producer.progress import counting
from producer.prompt_files.sources import Reading
from producer.reporter import Reporter
from producer.requests.expand import Identified
from producer.requests.folder_entries import MOST_IN_FOLDER
from producer.requests.prepared import prepare
from producer.show import print_skipped
from producer.stops import interruptible

Form = Literal["files", "webdataset", "parquet"]

SHARD_SIZE = 1000
"""Images in a shard of an export that asks for no other number."""

_One = TypeVar("_One")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported, and what was left out."""

    output: str
    """What was exported: an output or a parquet."""
    target: str
    to: Form
    images: int
    shards: int | None
    """None for a parquet."""
    failed: int
    """Images, of a manifest those that it asks for, that the output does not hold because they failed."""
    orphans: int
    """Images of the output that the manifest does not ask for, and that were left out."""
    missing: int
    """Other images that the manifest asks for and that the output does not hold."""
    skipped: int
    """Rows of the manifest's prompt files that were left out because something is wrong with them."""
    skipped_rows: tuple[str, ...]
    """The first of those: `FILE:LINE: what`."""


class _Choice:
    """Which images of a source are exported, by image_id: all, or those that a manifest asks for."""

    def __init__(self, source: PictureSource, asked: Iterable[Identified] | None) -> None:
        self._source, self._all = source, asked is None
        self._asked, self._seen = CompactCounter(), CompactCounter()
        self.asked = 0
        """Images that the manifest asks for."""
        for image_id, _entry in () if asked is None else asked:
            self._asked.mark(int(image_id, 16), 1)
            self.asked += 1

    def takes(self, image_id: str) -> bool:
        """Whether the image is exported."""
        return self._all or self._asked.get(int(image_id, 16)) > 0

    def takes_once(self, image_id: str) -> bool:
        """The same. Raises OutputError for one that was taken before."""
        taken = self.takes(image_id)
        if taken and self._seen.mark(int(image_id, 16), 1) > 0:
            raise self._source.broken(f"{self._source.path}: image {image_id} is there twice")
        return taken


def write_export(
    path: Path,
    target: Path,
    to: Form,
    settings: Settings,
    *,
    only_current: Path | None = None,
    shard_size: int | None = None,
    with_pictures: bool = True,
) -> Exported:
    """Writes the images of the output or parquet at `path` to `target` in another form.

    Both paths are absolute. Equal sources give equal bytes. `only_current`: a manifest; only what it asks for
    is exported. Raises ImagemillError, and then nothing is left at `target`: OutputError when something is in
    the way, the disk is full or a picture is broken, Interrupted after Ctrl-C.
    """
    if to == "parquet":
        check_pyarrow("--to parquet", "export --to files")
        if shard_size is not None:
            raise JobError("--shard-size: a parquet is one file without shards: leave it out")
    elif not with_pictures:
        raise JobError(
            f"--no-pictures: --to {to} always writes pictures: leave it out, or export --to parquet"
        )
    if to == "files" and shard_size is not None and shard_size > MOST_IN_FOLDER:
        raise JobError(
            f"--shard-size = {shard_size}: the Hugging Face hub takes 10,000 entries a folder, and "
            f"metadata.jsonl is one: use {MOST_IN_FOLDER}"
        )
    check_free(target, path, folder=to != "parquet")
    with interruptible(f"{target}: stopped before the end; nothing was left there"):
        source = _source(path)
        asked, reading = None, Reading()
        if only_current is not None:
            asked = prepare(only_current, settings).entries(reading=reading)
        choice = _Choice(source, asked)
        found, orphans = Contents(), 0
        for record in source.records():
            if choice.takes_once(record["image_id"]):
                check_exportable(source, record)
                found.add(record)
            else:
                orphans += 1
        if not found.total:
            which = "to export" if only_current is None else f"that {only_current} asks for"
            raise OutputError(f"{path}: holds no picture {which}")
        found.licences = read_licences(Output(path)) if path.is_dir() else {}
        failed, shards = sum(map(choice.takes, source.failed())), None
        with counting("images exported", found.total) as reporter, appearing(target) as hidden:
            taken = _counted(source.pictures(choice.takes), reporter)
            if to != "parquet":
                size = SHARD_SIZE if shard_size is None else shard_size
                shards = write_shards(Output(hidden), to, taken, size)
                card = dataset_card(found, layout=to, as_pattern=is_pattern(target))
                (hidden / "README.md").write_bytes(card.encode())
            elif with_pictures:
                column = json_column(_records(source, choice), found.columns)
                write_pictures(hidden, taken, found.columns, column)
            else:
                write_records(hidden, _counted(_records(source, choice), reporter), found.columns)
        return Exported(
            output=str(path),
            target=str(target),
            to=to,
            images=found.total,
            shards=shards,
            failed=failed,
            orphans=orphans,
            missing=0 if asked is None else choice.asked - found.total - failed,
            skipped=reading.skipped,
            skipped_rows=tuple(reading.skipped_rows),
        )


def _source(path: Path) -> PictureSource:
    if not path.is_dir():
        return open_parquet(path)
    output = Output(path)
    return OutputSource(output, tuple(output.shards()))


def _records(source: PictureSource, choice: _Choice) -> Iterator[Record]:
    """The metadata of what is exported."""
    return (record for record in source.records() if choice.takes(record["image_id"]))


def report(exported: Exported) -> None:
    """Prints what was exported, and what was left out."""
    parts = [f"{exported.target}: {counted(exported.images, 'image')}"]
    if exported.shards is not None:
        parts[0] += f" in {counted(exported.shards, 'shard')}"
    if exported.orphans:
        parts.append(f"left out {counted(exported.orphans, 'image')} that the manifest does not ask for")
    if exported.missing:
        parts.append(f"{counted(exported.missing, 'image')} of the manifest missing")
    if exported.failed:
        parts.append(f"{exported.failed:,} failed")
    if exported.skipped:
        parts.append(f"{counted(exported.skipped, 'row')} of the manifest skipped")
    click.echo("; ".join(parts))
    print_skipped(exported.skipped, exported.skipped_rows)


def _counted(taken: Iterator[_One], reporter: Reporter) -> Iterator[_One]:
    """The same, counted one by one."""
    for number, one in enumerate(taken, 1):
        reporter.count(number)
        yield one
