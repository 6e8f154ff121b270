"""Images by the parquet of a shard: of a table only the columns are read that are needed.

First the columns that decide which rows are shown, then the others of those rows. The tar decides what is in
a shard: where its parquet is not there, or cannot be read, records are read instead (`record_lines`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from jobs.output.column_kinds import Kind
from jobs.output.parquet_pieces import BoundedParquet, open_bounded
from jobs.output.shard_names import SHARD_LIMIT, ShardNames
from jobs.output.shard_table import FAILED, SUCCESS, name_in_records, name_in_table
from jobs.output.webdataset import TarShard
from producer.serve.gallery.filter import PROMPT, Condition, default_of
from producer.serve.gallery.line import Cursor, Line
from producer.serve.gallery.wanted import Found, Wanted

if TYPE_CHECKING:
    import pyarrow

_MOST: Final = 32 << 20
"""Bytes of a parquet that is read: 10,000 images have 2 million."""
_ROWS: Final = 2_000
"""Rows at a time."""
_IMPORTING: Final = Lock()
_SHOWN: Final = ("key", "caption", "image_id", "width", "height", "seed", "flagged")
_OF_FAILED: Final = ("error_message", "command")


def table_kinds(tar: TarShard) -> Mapping[str, Kind] | None:
    """What the columns hold, by their names in records; None where the shard has no table that tells."""
    if not _has_pyarrow():
        return None
    import pyarrow

    try:
        schema = open_bounded(pyarrow.BufferReader(tar.store.read(tar.parquet, _MOST))).schema
        named = zip(map(name_in_records, schema.names), schema.types, strict=True)
        return {name: _kind(kind) for name, kind in named if name is not None}
    except FileNotFoundError:
        return None
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def _kind(type: pyarrow.DataType) -> Kind:
    from pyarrow import types

    if types.is_boolean(type):
        return "bool"
    if types.is_integer(type):
        return "int64"
    if types.is_floating(type):
        return "float64"
    return None if types.is_null(type) else "string"


def table_lines(tar: TarShard, wanted: Wanted) -> Found | None:
    """The images that are wanted; None where the shard has no table that tells them."""
    # The table leaves the files' names out.
    if not _has_pyarrow() or wanted.filter.column == "file_name":
        return None
    import pyarrow

    try:
        data = tar.store.read(tar.parquet, _MOST)
        table = open_bounded(pyarrow.BufferReader(data))
        return _lines(table, tar, wanted)
    except FileNotFoundError:
        return None
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):
        return None  # the tar says it, or what is wrong with it


def _has_pyarrow() -> bool:
    """Whether it is installed; it is imported then, once: two threads that do so at a time may meet half of
    it."""
    with _IMPORTING:
        if importlib.util.find_spec("pyarrow") is None:
            return False
        import pyarrow.compute
        import pyarrow.parquet  # noqa: F401

        return True


def _lines(table: BoundedParquet, tar: TarShard, wanted: Wanted) -> Found:
    known = set(table.schema.names)
    status = FAILED if wanted.filter.failed else SUCCESS
    conditions = [(_in_table(one.column, known), one) for one in wanted.filter.conditions]
    columns = ["key", "status", *(name for name, _ in conditions if name is not None)]
    rows: list[int] = []
    reached = None
    for first, piece in table.pieces([*dict.fromkeys(columns)], _ROWS):
        places = [_position(tar.names, tar.number, key) for key in piece.column("key").to_pylist()]
        states = piece.column("status").to_pylist()
        kept = [
            row
            for row, (place, state) in enumerate(zip(places, states, strict=True))
            if state == status and place is not None and wanted.start <= place < wanted.stop
        ]
        for name, condition in conditions:
            kept = _holding(piece, name, condition, kept)
        rows.extend(first + row for row in kept)
        if len(rows) > wanted.count and not wanted.last:
            break
    more = len(rows) > wanted.count
    rows = rows[-wanted.count :] if wanted.last else rows[: wanted.count]
    lines = [*_read(table, tar, rows, known, failed=wanted.filter.failed)]
    if more and lines:
        reached = lines[0].place.position if wanted.last else lines[-1].place.position + 1
    return Found(lines, reached)


def _holding(
    piece: pyarrow.RecordBatch, name: str | None, condition: Condition, rows: Sequence[int]
) -> list[int]:
    """Those of the rows for which the condition holds."""
    if not rows:
        return []
    if name is None:
        return [*rows] if condition.holds(default_of(condition.column)) else []
    values = piece.column(name).to_pylist()
    default = default_of(condition.column)
    return [row for row in rows if condition.holds(default if values[row] is None else values[row])]


def _read(
    table: BoundedParquet, tar: TarShard, rows: Sequence[int], known: set[str], *, failed: bool
) -> Iterator[Line]:
    """The lines of these rows, ascending, numbered from 1."""
    if not rows:
        return
    names = [name for name in (*_SHOWN, *(_OF_FAILED if failed else ())) if name in known]
    left = [*rows]
    for first, piece in table.pieces(names, _ROWS):
        here = [row - first for row in left if first <= row < first + piece.num_rows]
        left = left[len(here) :]
        if here:
            # Not `take`: to make an array of the rows, pyarrow imports pandas where that is installed.
            values = piece.slice(here[0], here[-1] - here[0] + 1).to_pylist()
            yield from (_line(tar, values[row - here[0]], failed=failed) for row in here)
        if not left:
            return


def _line(tar: TarShard, values: dict[str, Any], *, failed: bool) -> Line:
    position = _position(tar.names, tar.number, values["key"])
    assert position is not None  # its row was taken for it
    return Line(
        Cursor(tar.number, position),
        values["image_id"],
        values["caption"],
        values.get("width"),
        values.get("height"),
        values.get("seed"),
        values.get("flagged"),
        str(values.get("error_message")) if failed else None,
        values.get("command") if failed else None,
    )


def _in_table(column: str, known: set[str]) -> str | None:
    """What the table calls a column of the metadata; None where it has none."""
    name = "caption" if column == PROMPT else name_in_table(column)
    return name if name in known else None


def _position(names: ShardNames, shard: int, key: object) -> int | None:
    """The place in the shard that a key says; None for one of another shard."""
    if not isinstance(key, str) or len(key) < names.digits + 4:
        return None
    digits = key[-4:]
    if not (key.isascii() and key.isdecimal()) or key[:-4] != f"{shard:0{names.digits}d}":
        return None
    return int(digits) if int(digits) < SHARD_LIMIT else None
