"""Prompts in .parquet, by pyarrow (the extra `parquet`).

A column has one type throughout, which its author often did not choose: pandas makes decimal numbers of whole
ones as soon as one is missing. So a setting takes 30.0 for 30, and an `id` whole numbers too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.bounds import Column, WholeList
from jobs.errors import ManifestError, OutputError
from jobs.output.arrow_columns import check_pyarrow
from jobs.output.parquet_pieces import TooMuch, open_bounded
from jobs.plain_file import open_plain
from jobs.wording import printable, shortened
from producer.manifest.parts import ROW_VALUES, first_twice
from producer.manifest.text_lines import MAX_LINE, Record
from producer.prompt_files.arrow_texts import storable, unwritable, writer
from producer.prompt_files.column_roles import ColumnRoles
from producer.prompt_files.nested import Paths

if TYPE_CHECKING:
    from pyarrow import DataType

_ROWS = 4096
"""Rows held at a time."""
_COLUMNS: Mapping[str, Column] = {
    name: values.column for name, values in ROW_VALUES.items() if not isinstance(values, WholeList)
}
"""The fields that hold one value -> the type of their column."""
_EXACT = {16: 11, 32: 24, 64: 53}
"""Bits of a float -> the power of two below which it holds every whole number."""


def records(file: Path, roles: ColumnRoles, paths: Paths) -> Iterator[Record]:
    """Each row with its number from 1; where others are ignored, only columns that are used are read.

    Structs are opened where `paths` lead into them. Fields come in our types; dates, times and decimals come
    as text. Raises ManifestError for columns by which no row can be read, for types that no text stands for,
    when pyarrow is not installed and for a file that is no parquet.
    """
    try:
        check_pyarrow(str(file), "use .jsonl or .csv")
    except OutputError as error:
        raise ManifestError(str(error)) from None
    import pyarrow

    number = 0
    try:
        with open_plain(file) as contents:
            table = open_bounded(contents)
            schema = table.schema
            twice = first_twice(schema.names)
            if twice is not None:
                what = shortened(str(twice)) or "a column without a name"
                raise ManifestError(f"{file}: {what} occurs twice: rename one")
            inner = {one.name: dict(_opened(one.name, one.type, paths)) for one in schema}
            kinds = {name: kind for below in inner.values() for name, kind in below.items()}
            trouble = roles.trouble(kinds)
            if trouble is not None:
                raise ManifestError(f"{file}: {printable(trouble)}")
            used = {name: kind for name, kind in kinds.items() if roles.wants(name)}
            columns = [name for name, below in inner.items() if below.keys() & used.keys()]
            writers = {name: writer(schema.field(name).type) for name in columns}
            written = {name: write for name, write in writers.items() if write is not None}
            fields = {name: field for name in used if (field := roles.field(name))}
            for name in used.keys() - fields.keys():
                if (held := unwritable(kinds[name])) is not None:
                    remedy = "cast it to text, or leave it out of `columns`"
                    raise ManifestError(f"{file}: {shortened(name)}: holds {held}: {remedy}")
            doubtful = [name for name in fields if not _fits(fields[name], kinds[name])]
            for _first, batch in table.pieces(columns, _ROWS, MAX_LINE):
                for row in storable(batch).to_pylist():
                    number += 1
                    for name, write in written.items():
                        row[name] = write(row[name])
                    values = paths.opened(row) if paths else row
                    if isinstance(values, ManifestError):
                        yield number, values
                        continue
                    wrong = []
                    for name in doubtful:
                        was = values.get(name)
                        value = _converted(fields[name], was, kinds[name])
                        if isinstance(value, ManifestError):
                            shown = shortened(json.dumps(was, default=repr))
                            wrong.append(f"{name} = {shown}: {value}")
                        values[name] = value
                    yield number, ManifestError("; ".join(wrong)) if wrong else values
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except TooMuch as error:
        of_file = error.row is None
        where = str(file) if of_file else f"{file}:{error.row}"
        remedy = "write a file that has each prompt once" if of_file else "write a prompt a row"
        raise ManifestError(f"{where}: {printable(str(error))}: {remedy}") from None
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        where = f"{file}:{number + 1}" if number else str(file)
        raise ManifestError(f"{where}: cannot be read as parquet: {printable(str(error))}") from None


def _opened(name: str, kind: DataType, paths: Paths) -> Iterator[tuple[str, DataType]]:
    """What a column is as columns: itself, or what is in it where paths lead into it."""
    from pyarrow import types

    if not (paths.into(name) and types.is_struct(kind)):
        yield name, kind
        return
    whole = paths.whole(name)
    if whole:
        yield name, kind
    for one in kind:
        for path, below in _opened(f"{name}.{one.name}", one.type, paths):
            if not whole or paths.whole(path):
                yield path, below


def _fits(field: str | None, kind: DataType) -> bool:
    """Whether no value of a column of this type is of another type than the field's."""
    from pyarrow import types

    match None if field is None else _COLUMNS.get(field):
        case "string":
            return bool(types.is_string(kind) or types.is_large_string(kind))
        case "int64":
            return bool(types.is_integer(kind))
        case "float64":
            return bool(types.is_integer(kind) or types.is_floating(kind))
    return True


def _converted(field: str, value: Any, kind: DataType) -> object | ManifestError:
    """The value in the field's type; its range is not looked at."""
    if value is None:
        return None
    if field == "id" and type(value) is int:
        return str(value)
    if field == "id" and type(value) is float:
        # As text it would be 7.0.
        return ManifestError(_cast("must be text or a whole number", kind, "int64"))
    if field == "scheduler" and type(value) is int:
        return value
    if _COLUMNS[field] == "string":
        return value if type(value) is str else ManifestError(_cast("must be text", kind, "string"))
    if _COLUMNS[field] == "float64":
        return value if type(value) is float else ManifestError(_cast("must be a number", kind, "double"))
    if type(value) is not float:
        return ManifestError(_cast("must be a whole number", kind, "int64"))
    if not value.is_integer():
        return ManifestError(_cast("must be a whole number, or null: round it", kind, "int64"))
    if abs(value) >= 2 ** _EXACT[kind.bit_width]:
        what = f"may have been another number: from 2**{_EXACT[kind.bit_width]} on {kind} is not exact"
        return ManifestError(f"{what}: write the file again with the column as int64")
    return int(value)


def _cast(what: str, kind: DataType, to: str) -> str:
    return f"{what}: cast the column from {kind} to {to}"
