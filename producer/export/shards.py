"""`--to files` and `--to webdataset`: shards as workers commit them, with new numbers and names."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path

from jobs.errors import OutputError
from jobs.output.contents import Contents
from jobs.output.line_order import Places, Split
from jobs.output.output import Output
from jobs.output.shard_names import ShardNames
from jobs.output.split_table import write_split
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName, StoredShard, entries_of_a_shard
from producer.export.bucket_target import repeated
from producer.export.source import Picture, Record


def named_for(target: Output, layout: LayoutName, images: int, shard_size: int) -> Output:
    """A new output with names for as many shards as the images need. Raises OutputError where there are
    none."""
    shards = -(-images // shard_size)
    names = ShardNames.for_shards(shards, entries_of_a_shard(layout))
    if shards > names.most(1):
        raise OutputError(
            f"{target.label}: {shards:,} shards, and names are for {names.most(1):,}: use a larger "
            "--shard-size"
        )
    return target.with_names(names)


def write_shards(target: Output, layout: LayoutName, pictures: Iterator[Picture], shard_size: int) -> int:
    """Write the pictures to a new output, in shards of `shard_size`; returns how many shards.

    In a bucket, shards that are there already are those of an export that was cut short. Raises OSError as
    the system gives it, OutputError where this machine cannot write the layout.
    """
    with _home(target) as home:
        target.stored(0, layout).check_writable(home)
        return _write(target, layout, pictures, shard_size, home)


@contextmanager
def _home(target: Output) -> Iterator[Path]:
    """Where shards are made: in the output, or with a bucket where temporary files are."""
    if not target.in_bucket:
        target.path.mkdir()
        yield target.path
        return
    with tempfile.TemporaryDirectory(prefix="imagemill-") as folder:
        yield Path(folder)


def _write(
    target: Output, layout: LayoutName, pictures: Iterator[Picture], shard_size: int, home: Path
) -> int:
    number, attempt = 0, f"export-{secrets.token_hex(6)}"
    while (first := next(pictures, None)) is not None:
        spool = home / f".{number}"
        images, records = spool / "images", list[Record]()
        images.mkdir(parents=True)
        stored = target.stored(number, layout)
        for position, picture in enumerate(chain([first], islice(pictures, shard_size - 1))):
            name = f"{stored.key(position)}{picture.suffix}"
            (images / name).write_bytes(picture.data)
            records.append({**picture.record, "file_name": name})
        stage = Stage(spool, f"{attempt}/{number}", lambda: None)
        if target.in_bucket:
            repeated(partial(_commit_again, stored, images, records, stage))
        else:
            stored.commit(images, records, [], stage)
        shutil.rmtree(spool)
        number += 1
    return number


def _commit_again(stored: StoredShard, images: Path, records: Sequence[Record], stage: Stage) -> None:
    """Commits a shard, which may be there already; the same call may be made again."""
    try:
        stored.commit(images, records, [], stage)
    except FileExistsError:
        if [*stored.records()] != [*records]:
            raise OutputError(
                f"{stored.label}: is there already, and is not the export's: name a place where nothing is"
            ) from None
        stored.complete()


def write_table(target: Output, found: Contents) -> str:
    """Write the lines of all folders of a new output, whose contents are `found`, to one file; returns its
    name. Raises OSError as the system gives it."""
    split = Split(Places(target, None))
    for shard in target.shards():
        for span, record in target.stored(shard).located():
            split.add(shard, span, record)
    name, found.columns = write_split(target, split, found.columns, target.path)
    return name
