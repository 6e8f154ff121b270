"""Metadata columns in Arrow and parquet, by their kinds. Imports pyarrow, an extra, when it is called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jobs.column_kinds import Kind

if TYPE_CHECKING:
    import pyarrow


def arrow_type(kind: Kind) -> pyarrow.DataType:
    """The column's type; an object that never has a field, which parquet does not know, is text."""
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


def fitted(value: Any, kind: Kind) -> Any:
    """The JSON value as such a column holds it: as JSON in one of text, where it is no text itself."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(kind, list):
        return [fitted(each, kind[0]) for each in value]
    if isinstance(kind, dict) and kind:
        return {name: fitted(value.get(name), each) for name, each in kind.items()}
    return json.dumps(value, ensure_ascii=False) if kind in ("string", {}) else value
