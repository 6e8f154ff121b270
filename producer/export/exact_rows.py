"""Rows of metadata in typed columns, and as JSON where the columns alone would lose something.

A column has one type, a null for a missing key, and in each object the fields of all objects; so 1 next to
0.5, a text next to a number, `{}` and a row without a key all lose something. Where rows must come back
exactly, one more column, `imagemill_row`, holds such rows as JSON; it is null for the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jobs.output.arrow_columns import fitted
from jobs.output.column_kinds import Kind
from jobs.strict_json import strict_json
from producer.export.source import Row

_COLUMN = "imagemill_row"


def in_columns(row: Row, columns: Mapping[str, Kind]) -> Row:
    """The row as these columns return it: a value for each, null where the row lacks it."""
    return {name: fitted(row.get(name), kind) for name, kind in columns.items()}


def beside(row: Row, columns: Mapping[str, Kind]) -> str | None:
    """The row as JSON; None when the columns return it exactly: keys, types and order."""
    text = _json(row)
    return None if text == _json(in_columns(row, columns)) else text


def row_column(rows: Iterable[Row], columns: Mapping[str, Kind]) -> str | None:
    """A free name for the column of JSON; None when no row needs it."""
    if all(beside(row, columns) is None for row in rows):
        return None
    name = _COLUMN
    while name in columns:
        name += "_"
    return name


def restored(values: Row, text: str | None, columns: Mapping[str, Kind]) -> Row:
    """The row whose columns hold `values` and whose column of JSON holds `text`.

    Raises ValueError when they are not of one row: one of them was changed.
    """
    if text is None:
        return values
    try:
        row = strict_json(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object")
    for name in row.keys() - columns.keys():
        raise ValueError(f"has {name}, which is no column")
    for name, value in in_columns(row, columns).items():
        if _json(value) != _json(values[name]):
            raise ValueError(f"has another {name} than the column of that name")
    return row


def _json(value: object) -> str:
    # As text 1, 1.0 and true differ, and NaN is NaN.
    return json.dumps(value, ensure_ascii=False)
