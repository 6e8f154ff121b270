"""Lines of a job that share a picture with another line, added to the output in shards of their own.

In `layout: files` their pictures are hard links where the file system has them, in tars copies. Such a shard
is committed as any other; what is there already is not added again, so that a finishing may end anywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.columns import INDEX
from jobs.output.compact_counter import CompactCounter
from jobs.output.durable import write_atomically
from jobs.output.equal_lines import NotedLine, noted_lines
from jobs.output.files import FolderShard
from jobs.output.job_files import JobFiles
from jobs.output.lines import HeldLines, columns_of
from jobs.output.output import Output
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName
from jobs.plain_file import read_plain

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LinesOf:
    """The job whose lines are added."""

    job_id: str
    layout: LayoutName
    shard_size: int
    column_names: Sequence[str]


def add_lines(output: Output, job: LinesOf, stage: Stage) -> None:
    """Commits the lines that the job's submission noted and that the output lacks, where it has the picture.

    `stage`: the finishing's. Raises OSError as the store gives it, OutputError where metadata cannot be read,
    LeaseLost when another job has begun.
    """
    if not output.store.exists(JobFiles(output, job.job_id).equal_lines):
        return
    while not _add(output, job, stage):
        stage.confirm()


def _add(output: Output, job: LinesOf, stage: Stage) -> bool:
    """Adds them; False when a late attempt at this finishing took a number, and so may have added some."""
    # Before the shards are listed: what a late attempt adds after that has one of the numbers from here on.
    number = output.next_shard()
    held, where = HeldLines(), CompactCounter()
    for shard, stored in output.in_turn():
        for record in stored.held_records():
            held.add(record)
            key = int(record["image_id"], 16)
            if not where.get(key):
                where.set(key, shard + 1)
    lacking: list[NotedLine] = []
    for line in noted_lines(output, job.job_id):
        if line.image_id in held and held.take_line(line.image_id, line.id, line.columns):
            lacking.append(line)
            if len(lacking) == job.shard_size:
                if not _commit(output, job, number, lacking, where, stage):
                    return False
                number, lacking = number + 1, []
    return not lacking or _commit(output, job, number, lacking, where, stage)


def _commit(
    output: Output,
    job: LinesOf,
    number: int,
    lines: Sequence[NotedLine],
    where: CompactCounter,
    stage: Stage,
) -> bool:
    """Commits a shard of lines; False when its number is taken."""
    stored = output.stored(number, job.layout)
    stored.check_writable(stage.folder)
    images = stage.folder / f"lines-{number}" / "images"
    shutil.rmtree(images.parent, ignore_errors=True)  # of a commit that failed, as on a full disk
    images.mkdir(parents=True)
    wanted: dict[int, dict[str, list[int]]] = {}
    for position, line in enumerate(lines):
        shard = where.get(int(line.image_id, 16)) - 1
        wanted.setdefault(shard, {}).setdefault(line.image_id, []).append(position)
    records: dict[int, Record] = {}
    for shard, of_image in wanted.items():
        sources: dict[str, list[int]] = {}
        for source in output.stored(shard).held_records():
            for position in of_image.pop(source["image_id"], ()):
                suffix = Path(source["file_name"]).suffix
                name = f"{stored.key(position)}{suffix}"
                records[position] = _record(source, name, lines[position], job)
                sources.setdefault(source["file_name"], []).append(position)
        _put_pictures(
            output,
            shard,
            {name: [records[p]["file_name"] for p in at] for name, at in sources.items()},
            images,
        )
    stage.confirm()
    try:
        stored.commit(images, [records[position] for position in sorted(records)], [], stage)
    except FileExistsError:
        return False
    shutil.rmtree(images.parent, ignore_errors=True)
    return True


def _put_pictures(output: Output, shard: int, names: Mapping[str, Sequence[str]], images: Path) -> None:
    """Puts pictures of a shard into `images`, under each of their new names."""
    stored = output.stored(shard)
    if isinstance(stored, FolderShard):
        for name, new_names in names.items():
            for new in new_names:
                try:
                    os.link(stored.path / name, images / new)
                except OSError:
                    # A file system without hard links, or one that has no more for this file.
                    write_atomically(images / new, read_plain(stored.path / name))
        return
    for name, data in stored.pictures(names.keys()):
        for new in names[name]:
            write_atomically(images / new, data)


def _record(source: Record, file_name: str, line: NotedLine, job: LinesOf) -> Record:
    """The record of a line whose picture `source` has."""
    others = columns_of(source)
    record: Record = {}
    for name, value in source.items():
        if name == "id":
            record["id"] = line.id
            record |= {column: line.columns.get(column) for column in job.column_names}
        elif name not in others and name != INDEX:
            record[name] = value
        if name == "image_id":
            record[INDEX] = line.index
    return record | {"file_name": file_name, "job_id": job.job_id}
