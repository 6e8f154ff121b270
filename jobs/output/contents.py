"""What a dataset holds, gathered in one pass over its records: what its card, and a job's end, tell of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from jobs.columns import RENDERED_PREFIX
from jobs.output.column_kinds import Kind, kind_of, merged
from jobs.output.compact_counter import CompactCounter
from jobs.output.line_order import Split
from jobs.output.lines import numbered
from jobs.output.nested_kinds import special_text
from jobs.output.output import Output
from jobs.output.shard_names import FLAT, ShardNames
from jobs.output.stored_shard import LayoutName
from jobs.output.webdataset import TarShard
from jobs.request import SETTINGS

_COUNTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "model": lambda record: record.get("model"),
    "size": lambda record: f"{record.get('width')}x{record.get('height')}",
    "scheduler": lambda record: record.get("scheduler"),
    "steps": lambda record: record.get("num_inference_steps"),
}
_SHARED = ("model", "revision", *(name for name in SETTINGS if name not in ("model", "revision")))
_OWN = frozenset({*SETTINGS, "file_name", "text", "image_id", "id", "job_id", "flagged", "sha256"})
_PLAIN = ""
Endings = dict[LayoutName, Counter[str]]
"""Layouts that have images -> how many there are whose files' names end with `png`."""


@dataclass(slots=True)
class Contents:
    """What a dataset holds, gathered in one pass over its records."""

    images: dict[int, int] = field(default_factory=dict)
    """Images by shard number; shards in which all failed have 0."""
    total: int = 0
    pictures: int = 0
    """Different ones: lines that are equal but for their id and columns share one."""
    formats: Counter[str] = field(default_factory=Counter)
    """What their files' names end with, `png` -> how many do."""
    endings: Endings = field(default_factory=dict)
    """The same for each layout; images that were added one by one belong to none."""
    columns: dict[str, Kind] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """The user's columns that hold only a special kind of texts -> that kind: `JSON_TEXT`, `DATES`."""
    counts: dict[str, Counter[object]] = field(default_factory=lambda: {n: Counter() for n in _COUNTED})
    """Model, size, scheduler and steps -> images by value."""
    shared: dict[str, Any] = field(default_factory=dict)
    """The settings that all records have in common, and how they were rendered."""
    models: set[tuple[str, str]] = field(default_factory=set)
    """Each model and its revision."""
    licences: dict[tuple[str, str], str] = field(default_factory=dict)
    """Those of the models, where they are known."""
    cut: Counter[str] = field(default_factory=Counter)
    """Job -> images whose prompt was cut when it rendered them."""
    name: str = ""
    """The name of the job that rendered the first image."""
    checksum: int = 0
    """A CRC-32 of all records in their order: another one for other pictures, lines or places."""
    names: ShardNames = FLAT
    """What the dataset's shards are called."""
    _seen: CompactCounter = field(default_factory=CompactCounter)

    def ordered_by(self, table: str) -> None:
        """Take in which order a table, of which this is the SHA-256, gives the records."""
        self.checksum = crc32(table.encode(), self.checksum)

    def add(self, record: dict[str, Any]) -> None:
        """Take one more record in."""
        columns = self.columns
        for name, value in record.items():
            if type(value) is str and name not in _OWN and self.texts.get(name) != _PLAIN:
                kind_of_text = special_text(value)
                if self.texts.setdefault(name, kind_of_text) != kind_of_text:
                    self.texts[name] = _PLAIN
            kind = kind_of(value)
            known = columns.setdefault(name, kind)
            if kind != known:
                columns[name] = merged(known, kind)
        if not self.total:
            names = [*_SHARED, *(name for name in record if name.startswith(RENDERED_PREFIX))]
            self.shared = {name: record[name] for name in names if name in record}
            self.name = str(record.get("job_id")).rpartition("-")[0]
        for name in [name for name, value in self.shared.items() if record.get(name) != value]:
            del self.shared[name]
        for name, value_of in _COUNTED.items():
            self.counts[name][value_of(record)] += 1
        self.formats[_ending(record)] += 1
        self.models.add((str(record.get("model")), str(record.get("revision"))))
        self.pictures += self._seen.mark(int(record["image_id"], 16), 1) == 0
        if record.get("prompt_cut") is not None:
            self.cut[str(record.get("job_id"))] += 1
        told = f"{record['image_id']} {record.get('sha256')} {record.get('id')} {record.get('index')}"
        self.checksum = crc32(told.encode(), self.checksum)
        self.total += 1

    def add_stored(self, shard: int, layout: LayoutName, record: dict[str, Any]) -> None:
        """Take one more record of a shard in."""
        self.add(record)
        self.endings.setdefault(layout, Counter())[_ending(record)] += 1
        self.images[shard] += 1


def contents(output: Output, split: Split | None = None) -> Contents:
    """What the committed shards hold; those of `layout: files` are added to `split`.

    Raises OutputError where their metadata cannot be read.
    """
    found = Contents(names=output.names)
    for shard, stored in output.in_turn():
        found.images[shard] = 0
        layout: LayoutName = "webdataset" if isinstance(stored, TarShard) else "files"
        for span, record in stored.located():
            if split is not None and layout == "files":
                split.add(shard, span, record)
                found.add_stored(shard, layout, numbered(record, 0))  # as the split's table has it
            else:
                found.add_stored(shard, layout, record)
    return found


def _ending(record: dict[str, Any]) -> str:
    ending: str = record["file_name"].rpartition(".")[2]
    return ending
