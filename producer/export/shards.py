"""`--to files` and `--to webdataset`: shards as workers commit them, with new numbers and names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import chain, islice

from jobs.output.contents import Contents
from jobs.output.line_order import Places, Split
from jobs.output.output import Output
from jobs.output.split_table import write_split
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName, image_key
from producer.export.source import Picture


def write_shards(target: Output, layout: LayoutName, pictures: Iterator[Picture], shard_size: int) -> int:
    """Write the pictures to a new output, in shards of `shard_size`; returns how many shards.

    Raises OSError as the system gives it, OutputError where this machine cannot write the layout.
    """
    target.path.mkdir()
    target.stored(0, layout).check_writable(target.path)
    number = 0
    while (first := next(pictures, None)) is not None:
        spool = target.path / f".{number}"
        images, records = spool / "images", []
        images.mkdir(parents=True)
        for position, picture in enumerate(chain([first], islice(pictures, shard_size - 1))):
            name = f"{image_key(number, position)}{picture.suffix}"
            (images / name).write_bytes(picture.data)
            records.append({**picture.record, "file_name": name})
        target.stored(number, layout).commit(
            images, records, [], Stage(spool, f"export/{number}", lambda: None)
        )
        shutil.rmtree(spool)
        number += 1
    return number


def write_table(target: Output, found: Contents) -> str:
    """Write the lines of all folders of a new output, whose contents are `found`, to one file; returns its
    name. Raises OSError as the system gives it."""
    split = Split(Places(target, None))
    for shard in target.shards():
        for span, record in target.stored(shard).located():
            split.add(shard, span, record)
    name, found.columns = write_split(target, split, found.columns, target.path)
    return name
