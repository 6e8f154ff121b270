"""Rows of metadata in typed columns, and as JSON besides where the columns alone do not tell them exactly.

A column has one type, a null for a key that is not there, and in each object the fields of all; so of 1
beside 0.5, of a text beside a number, of `{}` and of a row without a key something is lost. Where rows are
to come back, one column more holds those, `imagemill_row`: the row as JSON, null where the others say it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jobs.output.arrow_columns import fitted
from jobs.output.column_kinds import Kind
from producer.export.source import Row

_COLUMN = "imagemill_row"


def in_columns(row: Row, columns: Mapping[str, Kind]) -> Row:
    """The row as these columns give it back: each of them, null where it lacks one."""
    return {name: fitted(row.get(name), kind) for name, kind in columns.items()}


def beside(row: Row, columns: Mapping[str, Kind]) -> str | None:
    """The row as JSON; None where the columns tell it exactly, its keys, types and their order."""
    text = _json(row)
    return None if text == _json(in_columns(row, columns)) else text


def row_column(rows: Iterable[Row], columns: Mapping[str, Kind]) -> str | None:
    """A name for the column of JSON, which no other has; None where none of the rows needs it."""
    if all(beside(row, columns) is None for row in rows):
        return None
    name = _COLUMN
    while name in columns:
        name += "_"
    return name


def restored(told: Row, text: str | None, columns: Mapping[str, Kind]) -> Row:
    """The row of which the columns `told` this and the column of JSON `text`.

    Raises ValueError where they are not of one row: somebody changed one of them.
    """
    if text is None:
        return told
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object")
    for name in row.keys() - columns.keys():
        raise ValueError(f"has {name}, which is no column")
    for name, value in in_columns(row, columns).items():
        if _json(value) != _json(told[name]):
            raise ValueError(f"has another {name} than the column of that name")
    return row


def _json(value: object) -> str:
    # As text 1, 1.0 and true differ, and NaN is NaN.
    return json.dumps(value, ensure_ascii=False)
