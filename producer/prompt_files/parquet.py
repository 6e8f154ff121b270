"""Prompts in .parquet, by pyarrow (the extra `parquet`).

A column has one type throughout, which its author often did not choose: pandas makes decimal numbers of whole
ones as soon as one is missing. So a setting takes 30.0 for 30, and an `id` whole numbers too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.bounds import Column, WholeList
from jobs.errors import ManifestError, OutputError
from jobs.output.arrow_columns import check_pyarrow
from jobs.wording import printable, shortened
from producer.manifest.parts import ROW_VALUES, first_twice
from producer.manifest.text_lines import Record

if TYPE_CHECKING:
    from pyarrow import DataType

_ROWS = 4096
"""Rows held at a time."""
_BUFFER = 1 << 20
"""Bytes read at a time: without it pyarrow holds a whole column of a row group, often all of the file."""
_COLUMNS: Mapping[str, Column] = {
    name: values.column for name, values in ROW_VALUES.items() if not isinstance(values, WholeList)
}
"""The fields that hold one value -> the type of their column."""
_EXACT = {16: 11, 32: 24, 64: 53}
"""Bits of a float -> the power of two below which it holds every whole number."""


def records(
    file: Path,
    fields: Mapping[str, str],
    wanted: Callable[[str], bool] | None,
    names_trouble: Callable[[Collection[str]], str | None],
) -> Iterator[Record]:
    """Each row with its number from 1; of the columns only those `wanted` (None: all) are read.

    `fields`: what the file calls our fields -> the fields; their values come in our types. `names_trouble` is
    why no row with these columns can be read, or None. Raises ManifestError for such columns, when pyarrow is
    not installed and for a file that is no parquet.
    """
    try:
        check_pyarrow(str(file), "use .jsonl or .csv")
    except OutputError as error:
        raise ManifestError(str(error)) from None
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            schema = table.schema_arrow
            twice = first_twice(schema.names)
            if twice is not None:
                what = shortened(str(twice)) or "a column without a name"
                raise ManifestError(f"{file}: {what} occurs twice: rename one")
            columns = [name for name in schema.names if wanted is None or wanted(name)]
            trouble = names_trouble(columns)
            if trouble is not None:
                raise ManifestError(f"{file}: {printable(trouble)}")
            kinds = {name: schema.field(name).type for name in columns}
            doubtful = [name for name in columns if not _fits(fields.get(name), kinds[name])]
            for batch in table.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    wrong = []
                    for name in doubtful:
                        value = _converted(fields[name], values[name], kinds[name])
                        if isinstance(value, ManifestError):
                            shown = shortened(json.dumps(values[name], default=repr))
                            wrong.append(f"{name} = {shown}: {value}")
                        values[name] = value
                    yield number, ManifestError("; ".join(wrong)) if wrong else values
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        where = f"{file}:{number + 1}" if number else str(file)
        raise ManifestError(f"{where}: cannot be read as parquet: {printable(str(error))}") from None


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
