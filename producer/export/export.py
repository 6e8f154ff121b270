"""`imagemill export`: an output or a parquet as a dataset in another form, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from jobs.errors import OutputError
from jobs.output.arrow_columns import check_pyarrow
from jobs.output.card import dataset_card, is_pattern
from jobs.output.compact_counter import CompactCounter
from jobs.output.contents import Contents
from jobs.output.licences import read_licences
from jobs.output.lines import key_of, line_key, numbered
from jobs.output.output import CARD, Output
from jobs.settings import Settings
from jobs.wording import counted
from producer.export.bucket_target import appearing_object, check_apart, resumable
from producer.export.consumer import Written
from producer.export.exact_records import json_column
from producer.export.options import Form, Options, consumer_of
from producer.export.parquet import write_pictures, write_records
from producer.export.parquet_source import open_parquet
from producer.export.pictures import OutputSource, open_output
from producer.export.shards import named_for, write_shards, write_table
from producer.export.source import Picture, PictureSource, Record, check_exportable
from producer.export.target import appearing, check_free
from producer.progress import counting
from producer.prompt_files.reading import Reading
from producer.reporter import Reporter
from producer.requests.expand import EqualLine, Identified, Repeats
from producer.requests.prepared import prepare
from producer.show import print_skipped
from producer.stops import interruptible

SHARD_SIZE = 1000
"""Images in a shard of an export that asks for no other number."""

_NO_OPTIONS = Options()
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
    """Of `files` and `webdataset`."""
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
    prompts: int | None = None
    """Of `geneval`: folders."""
    pages: int | None = None
    """Of `grid`."""
    remarks: tuple[str, ...] = ()
    """What else to know of what was written."""


_IMAGE, _LINE, _CURRENT = 1, 2, 4
"""What a manifest asks for: an image, a line; an image that is there with one of its lines."""


class _Choice:
    """Which records of a source are exported: all, or those of the images that a manifest asks for, with the
    lines that it has for them; where the source has none of these, with those that are there."""

    def __init__(self, source: PictureSource, asked: Iterable[Identified] | None) -> None:
        self._source, self._all = source, asked is None
        self._asked, self._seen = CompactCounter(), CompactCounter()
        self.asked = 0
        """Images that the manifest asks for."""
        for keyed in () if asked is None else asked:
            image_id, entry = keyed
            self._asked.mark(line_key(image_id, entry.id, entry.columns), _LINE)
            if type(keyed) is not EqualLine:
                self._asked.mark(int(image_id, 16), _IMAGE)
                self.asked += 1
        for record in () if asked is None else source.records():
            if self._asked.get(key_of(record)) & _LINE:
                self._asked.mark(int(record["image_id"], 16), _CURRENT)

    def asks_for(self, image_id: str) -> bool:
        """Whether the image is exported."""
        return self._all or bool(self._asked.get(int(image_id, 16)) & _IMAGE)

    def takes(self, record: Record) -> bool:
        """Whether the record is exported."""
        if self._all:
            return True
        image = self._asked.get(int(record["image_id"], 16))
        return bool(image & _IMAGE) and bool(not image & _CURRENT or self._asked.get(key_of(record)) & _LINE)

    def takes_once(self, record: Record) -> bool:
        """The same. Raises OutputError for one that was taken before."""
        taken = self.takes(record)
        if taken and self._seen.mark(key_of(record), 1) > 0:
            raise self._source.broken(f"{self._source.path}: image {record['image_id']} is there twice")
        return taken


def write_export(
    path: Path | str,
    target: Path | str,
    to: Form,
    settings: Settings,
    *,
    only_current: Path | None = None,
    options: Options = _NO_OPTIONS,
) -> Exported:
    """Writes the images of the output or parquet at `path` to `target` in another form.

    Both are absolute paths, or texts that name places in buckets. Equal sources give equal bytes.
    `only_current`: a manifest; only what it asks for is exported. Raises ImagemillError, and then nothing is
    left at `target`, except in a bucket that was interrupted or gave no answer (`bucket_target`): OutputError
    when something is in the way, the disk is full or a picture is broken, Interrupted after Ctrl-C.
    """
    consumer = consumer_of(to, options)
    if to == "parquet":
        check_pyarrow("--to parquet", "export --to files")
    place = _place(path, target, to) if isinstance(target, str) else None
    if isinstance(target, Path):
        check_free(target, path, folder=to != "parquet")
    left = "nothing was left there" if place is None else "the same command goes on"
    with interruptible(f"{target}: stopped before the end; {left}"):
        source = _source(path)
        asked, reading = None, Reading()
        if only_current is not None:
            asked = prepare(only_current, settings).entries(reading=reading, repeats=Repeats())
        choice = _Choice(source, asked)
        found, orphans = Contents(), 0
        for record in source.records():
            if choice.takes_once(record):
                check_exportable(source, record)
                here = numbered(record, found.total)
                found.add(here)
                if consumer is not None:
                    consumer.add(here)
            else:
                orphans += 1
        if not found.total:
            which = "to export" if only_current is None else f"that {only_current} asks for"
            raise OutputError(f"{path}: holds no picture {which}")
        found.licences = read_licences(source.output) if isinstance(source, OutputSource) else {}
        failed, shards = sum(map(choice.asks_for, source.failed())), None
        written = Written()
        size = SHARD_SIZE if options.shard_size is None else options.shard_size
        identity = {"images": found.total, "checksum": found.checksum, "shard_size": size}
        with (
            counting("images exported", found.total) as reporter,
            _appearing(target, place, identity) as hidden,
        ):
            taken = _counted(_numbered(source.pictures(choice.takes)), reporter)
            if consumer is not None:
                written = consumer.write(hidden, taken)
            elif to in {"files", "webdataset"}:
                output = named_for(Output(hidden) if place is None else place, to, found.total, size)
                found.names = output.names
                shards = write_shards(output, to, taken, size)
                table = write_table(output, found) if to == "files" else None
                as_pattern = isinstance(target, Path) and is_pattern(target)
                card = dataset_card(found, layout=to, as_pattern=as_pattern, table=table)
                output.store.replace(CARD, card.encode())
            elif options.with_pictures:
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
            missing=0 if asked is None else choice.asked - found.pictures - failed,
            skipped=reading.skipped,
            skipped_rows=tuple(reading.skipped_rows),
            prompts=written.prompts,
            pages=written.pages,
            remarks=written.remarks,
        )


def _source(path: Path | str) -> PictureSource:
    if isinstance(path, str):
        if path.endswith(".parquet"):
            raise OutputError(f"{path}: is in a bucket, and a parquet is read on this machine: download it")
        return open_output(Output.at(path))
    return open_output(Output(path)) if path.is_dir() else open_parquet(path)


def _place(path: Path | str, target: str, to: Form) -> Output | None:
    """The new output in a bucket that `target` names; None where it names an object.

    Raises OutputError for a form that has no place there.
    """
    if to not in {"webdataset", "parquet"}:
        raise OutputError(
            f"{target}: is in a bucket, and --to {to} writes a folder: name one of this machine and copy it, "
            "or take --to webdataset or parquet"
        )
    check_apart(target, str(path))
    place = Output.at(target)
    return place if to == "webdataset" else None


@contextmanager
def _appearing(target: Path | str, place: Output | None, identity: Mapping[str, int]) -> Iterator[Path]:
    """A path where the export is made, which becomes the target; with `place` it is made there."""
    if isinstance(target, Path):
        with appearing(target) as hidden:
            yield hidden
    elif place is None:
        with appearing_object(target) as hidden:
            yield hidden
    else:
        with resumable(place, identity):
            yield place.path


def _records(source: PictureSource, choice: _Choice) -> Iterator[Record]:
    """The metadata of what is exported, in its new order."""
    taken = filter(choice.takes, source.records())
    return (numbered(record, index) for index, record in enumerate(taken))


def _numbered(taken: Iterator[Picture]) -> Iterator[Picture]:
    """The pictures with their new order."""
    return (Picture(numbered(one.record, index), one.data) for index, one in enumerate(taken))


def report(exported: Exported) -> None:
    """Prints what was exported, and what was left out."""
    parts = [f"{exported.target}: {counted(exported.images, 'image')}"]
    if exported.shards is not None:
        parts[0] += f" in {counted(exported.shards, 'shard')}"
    if exported.prompts is not None:
        parts[0] += f" of {counted(exported.prompts, 'prompt')}"
    if exported.pages is not None:
        parts[0] += f" on {counted(exported.pages, 'page')}"
    if exported.orphans:
        parts.append(f"left out {counted(exported.orphans, 'image')} that the manifest does not ask for")
    if exported.missing:
        parts.append(f"{counted(exported.missing, 'image')} of the manifest missing")
    if exported.failed:
        parts.append(f"{exported.failed:,} failed")
    if exported.skipped:
        parts.append(f"{counted(exported.skipped, 'row')} of the manifest skipped")
    parts += exported.remarks
    click.echo("; ".join(parts))
    print_skipped(exported.skipped, exported.skipped_rows)


def _counted(taken: Iterator[_One], reporter: Reporter) -> Iterator[_One]:
    """The same, counted one by one."""
    for number, one in enumerate(taken, 1):
        reporter.count(number)
        yield one
