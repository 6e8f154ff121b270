"""Metadata columns in Arrow and parquet, by their kinds. Imports pyarrow, an extra, when it is called."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

from jobs.errors import OutputError
from jobs.output.column_kinds import Kind

if TYPE_CHECKING:
    import pyarrow


_FLOAT64_INTEGERS = 2**53
"""float64 holds every integer up to this one, and down to its negative; pyarrow converts no others."""


def check_pyarrow(what: str, instead: str) -> None:
    """Raises OutputError where `what` needs pyarrow and it is not installed. Does not import it."""
    if importlib.util.find_spec("pyarrow") is None:
        raise OutputError(f"{what}: needs pyarrow: pip install 'imagemill[parquet]', or {instead}")


def arrow_type(kind: Kind) -> pyarrow.DataType:
    """The column's type. An object that never has a field is text, because parquet cannot hold it."""
    import pyarrow

    if not kind:
        return pyarrow.string()
    if isinstance(kind, list):
        return pyarrow.list_(arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct({name: arrow_type(each) for name, each in kind.items()})
    if kind == "image":
        return pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    return pyarrow.type_for_alias(kind)


def kind_of_type(type: pyarrow.DataType) -> Kind:
    """The kind whose columns have this type; text for the kinds that have no type of their own.

    Raises ValueError for a type that no kind has.
    """
    import pyarrow

    if pyarrow.types.is_list(type):
        return [kind_of_type(type.value_type)]
    if pyarrow.types.is_struct(type):
        return {field.name: kind_of_type(field.type) for field in type}
    for kind in ("bool", "int64", "float64", "string"):
        if type == arrow_type(kind):
            return kind
    raise ValueError(f"is of type {type}")


def fitted(value: Any, kind: Kind) -> Any:
    """The JSON value as a column of this kind returns it: a column of text returns JSON for other values.

    A value that the column cannot hold stays as it is.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(kind, list) and isinstance(value, list):
        return [fitted(each, kind[0]) for each in value]
    if isinstance(kind, dict) and kind and isinstance(value, dict):
        return {name: fitted(value.get(name), each) for name, each in kind.items()}
    if kind == "float64" and type(value) is int and abs(value) <= _FLOAT64_INTEGERS:
        return float(value)
    return json.dumps(value, ensure_ascii=False) if kind in ("string", {}) else value
