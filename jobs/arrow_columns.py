"""Metadata columns in Arrow and parquet, by their kinds. Imports pyarrow, an extra, when it is called."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

from jobs.column_kinds import Kind
from jobs.errors import OutputError

if TYPE_CHECKING:
    import pyarrow


def check_pyarrow(what: str, instead: str) -> None:
    """Raises OutputError where `what` needs pyarrow and it is not installed. Imports nothing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise OutputError(f"{what}: needs pyarrow: pip install 'imagemill[parquet]', or {instead}")


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
