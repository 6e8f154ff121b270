"""Records of metadata in typed columns, and as JSON where the columns alone would lose something.

A column has one type, a null for a missing key, and in each object the fields of all objects; so 1 next to
0.5, a text next to a number, `{}` and a record without a key all lose something. Where records must come
back exactly, one more column, `imagemill_row`, holds such records as JSON; it is null for the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jobs.output.arrow_columns import fitted
from jobs.output.column_kinds import Kind
from jobs.strict_json import strict_json
from producer.export.source import Record

_COLUMN = "imagemill_row"


def in_columns(record: Record, columns: Mapping[str, Kind]) -> Record:
    """The record as these columns return it: a value for each, null where the record lacks it."""
    return {name: fitted(record.get(name), kind) for name, kind in columns.items()}


def beside(record: Record, columns: Mapping[str, Kind]) -> str | None:
    """The record as JSON; None when the columns return it exactly: keys, types and order."""
    text = _json(record)
    return None if text == _json(in_columns(record, columns)) else text


def is_exact(record: Record, columns: Mapping[str, Kind]) -> bool:
    """Whether the columns return the record exactly."""
    return beside(record, columns) is None


def json_column(records: Iterable[Record], columns: Mapping[str, Kind]) -> str | None:
    """A free name for the column of JSON; None when no record needs it."""
    return None if all(is_exact(record, columns) for record in records) else free_name(columns)


def free_name(columns: Mapping[str, Kind]) -> str:
    """A name for the column of JSON that none of these has."""
    name = _COLUMN
    while name in columns:
        name += "_"
    return name


def restored(values: Record, text: str | None, columns: Mapping[str, Kind]) -> Record:
    """The record whose columns hold `values` and whose column of JSON holds `text`.

    Raises ValueError when they are not of one record: one of them was changed.
    """
    if text is None:
        return values
    try:
        record = strict_json(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    for name in record.keys() - columns.keys():
        raise ValueError(f"has {name}, which is no column")
    for name, value in in_columns(record, columns).items():
        if _json(value) != _json(values[name]):
            raise ValueError(f"has another {name} than the column of that name")
    return record


def _json(value: object) -> str:
    # As text 1, 1.0 and true differ, and NaN is NaN.
    return json.dumps(value, ensure_ascii=False)
