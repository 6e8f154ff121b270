"""The lines of all folders of an output in one file and one order, from which `datasets` reads them.

    OUT/records.parquet     or records.jsonl, ten times as large, where pyarrow is not installed

`datasets` 5.2 keeps the metadata files of a folder in a set, so those of several shards come in another
order in every process. The card therefore names this file alone. It is written when a job has finished, and
follows from the shards and the order of the lines (`line_order`). Its `index` counts its lines, so
dataset[i]["index"] is i.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from jobs.output.arrow_columns import arrow_type, fitted
from jobs.output.column_kinds import Kind
from jobs.output.durable import written_atomically
from jobs.output.line_order import Split
from jobs.output.lines import numbered
from jobs.output.output import Output

if TYPE_CHECKING:
    import pyarrow

PARQUET, JSONL = "records.parquet", "records.jsonl"
TABLES = (PARQUET, JSONL)
_MOST_LINES, _MOST_BYTES = 2_000, 4 << 20
"""A row group ends with the one that is reached first: so much is held at a time."""

_PLAIN: dict[str, set[type]] = {
    "string": {str, NoneType},
    "int64": {int, NoneType},
    "float64": {float, NoneType},
    "bool": {bool, NoneType},
}
"""Kinds of columns, and types of values that they hold as they are."""

Record = dict[str, Any]
Columns = dict[str, Kind]


def write_split(output: Output, split: Split, columns: Columns, through: Path) -> tuple[str, Columns]:
    """Writes the table, through the folder `through`; returns its name, and the columns as it has them.

    `columns`: those of all records. One whose values its type does not hold unchanged, as of an integer that
    no float64 is, becomes text. A table of the other name is moved to `through`. Raises OSError as the system
    gives it, OutputError where a record cannot be read any more.
    """
    parquet = importlib.util.find_spec("pyarrow") is not None
    name = PARQUET if parquet else JSONL
    if parquet:
        columns = _write_parquet(output, split, columns, through)
    else:
        with written_atomically(output.path / JSONL, through) as file:
            for _, record in _lines(output, split):
                values = {name: fitted(record.get(name), kind) for name, kind in columns.items()}
                file.write(f"{json.dumps(values, ensure_ascii=False)}\n".encode())
    drop_tables(output, through, besides=name)
    return name, columns


def drop_tables(output: Output, into: Path, *, besides: str | None = None) -> None:
    """Moves the tables of the output to the folder `into`, but the one called `besides`."""
    for name in TABLES:
        if name != besides:
            with suppress(FileNotFoundError):
                (output.path / name).rename(into / name)


def _lines(output: Output, split: Split) -> Iterator[tuple[int, Record]]:
    """The records in the order of the split, numbered, with the paths of their pictures from the output; each
    after the bytes that it takes as JSON."""
    index = 0
    for shard, lines in groupby(split, itemgetter(0)):
        stored = output.stored(shard, "files")
        # Where its lines follow one another, a shard is read at one go.
        located = (
            stored.located() if split.in_order else ((span, stored.record_at(span)) for _, span in lines)
        )
        for span, record in located:
            values = numbered(record, index)
            values["file_name"] = f"{stored.name}/{record['file_name']}"
            yield span.size, values
            index += 1


def _write_parquet(output: Output, split: Split, columns: Columns, through: Path) -> Columns:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    while True:
        schema = pyarrow.schema({name: arrow_type(kind) for name, kind in columns.items()})
        try:
            # Through a file of Python's own, an error of the system arrives with its number.
            with (
                written_atomically(output.path / PARQUET, through) as sink,
                ParquetWriter(sink, schema, compression="zstd") as writer,
            ):
                for group in _groups(_lines(output, split)):
                    writer.write_batch(_batch(group, columns, schema))
            return columns
        except _UnheldError as error:
            columns = {**columns, error.column: "string"}


def _groups(lines: Iterable[tuple[int, Record]]) -> Iterator[list[Record]]:
    group: list[Record] = []
    held = 0
    for size, record in lines:
        group.append(record)
        held += size
        if held >= _MOST_BYTES or len(group) == _MOST_LINES:
            yield group
            group, held = [], 0
    if group:
        yield group


class _UnheldError(Exception):
    """A column's type does not hold one of its values unchanged."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _batch(records: list[Record], columns: Columns, schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow

    arrays = []
    for name, kind in columns.items():
        values = [record.get(name) for record in records]
        if not isinstance(kind, str) or not {*map(type, values)} <= _PLAIN.get(kind, set()):
            values = [fitted(value, kind) for value in values]
        try:
            arrays.append(pyarrow.array(values, schema.field(name).type))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
            if kind == "string":
                raise
            raise _UnheldError(name) from None
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)
