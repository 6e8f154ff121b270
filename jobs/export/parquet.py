"""`--to parquet`: one table of the metadata and, as the hub keeps images in parquet, the pictures.

Source: https://huggingface.co/docs/datasets/image_load (`image` is a struct of `bytes` and `path`)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.arrow_columns import arrow_type, fitted
from jobs.column_kinds import Kind
from jobs.errors import OutputError
from jobs.export.pictures import Picture

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

_GROUP_BYTES, _GROUP_ROWS = 16 << 20, 10_000
"""A row group ends with the one that is reached first: readers hold one at a time, as this writer does."""


def with_image(picture: Picture) -> Row:
    """The picture's row with the file itself in a column `image`."""
    return {"image": {"bytes": picture.data, "path": picture.row["file_name"]}, **picture.row}


def write_parquet(file: Path, rows: Iterable[Row], columns: Mapping[str, Kind]) -> None:
    """Write one parquet file of the rows, each with all of `columns`, null where it lacks one.

    Raises OSError as the system gives it, OutputError for values that no column holds unchanged.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    features = {name: {"_type": "Image"} for name, kind in columns.items() if kind == "image"}
    schema = pyarrow.schema(
        {name: arrow_type(kind) for name, kind in columns.items()},
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    # Through a file of Python's own, an error of the system arrives with its number.
    with file.open("xb") as sink, ParquetWriter(sink, schema) as writer:
        group: list[Row] = []
        held = 0
        for row in rows:
            group.append({name: fitted(row.get(name), kind) for name, kind in columns.items()})
            held += len(row["image"]["bytes"]) if "image" in row else 0
            if held >= _GROUP_BYTES or len(group) == _GROUP_ROWS:
                writer.write_batch(_batch(group, schema))
                group, held = [], 0
        if group:
            writer.write_batch(_batch(group, schema))


def _batch(rows: list[Row], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow

    try:
        return pyarrow.RecordBatch.from_pylist(rows, schema)
    except pyarrow.ArrowInvalid as error:
        raise OutputError(
            f"a column of the parquet cannot hold all its values unchanged: {error}; export --to files"
        ) from None
