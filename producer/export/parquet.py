"""`--to parquet`: one table of the metadata and, as the hub keeps images in parquet, the pictures.

With pictures, the schema's metadata says in `imagemill` that every record comes back
(`producer.export.exact_records`): {"rows": 1, "column": the name of the column of JSON, or null}.
Source: https://huggingface.co/docs/datasets/image_load (`image` is a struct of `bytes` and `path`)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import OutputError
from jobs.output.arrow_columns import arrow_type
from jobs.output.column_kinds import Kind
from producer.export.exact_records import beside, in_columns
from producer.export.source import Picture, Record

if TYPE_CHECKING:
    import pyarrow

IMAGE = "image"
"""The column of the pictures."""
MARK = b"imagemill"
ROWS = 1
"""The version of what the mark says."""

_FILES = "export --to files"
"""The remedy for what no table holds."""
GROUP_BYTES, GROUP_ROWS = 16 << 20, 10_000
"""A row group ends with the one that is reached first: readers hold one at a time, as this writer does."""


def write_pictures(
    file: Path, pictures: Iterable[Picture], columns: Mapping[str, Kind], json_column: str | None
) -> None:
    """Write one parquet file of the pictures, from which each comes back with its very record.

    `columns` are those of all records, `json_column` that of JSON. Raises OSError as the system gives it,
    OutputError for values that no column holds unchanged.
    """
    if IMAGE in columns:
        raise OutputError(f"a record has a key {IMAGE!r}, as the parquet calls its pictures: {_FILES}")
    kinds: dict[str, Kind] = {IMAGE: "image", **columns}
    if json_column is not None:
        kinds[json_column] = "string"
    records = (_with_image(picture, columns, json_column) for picture in pictures)
    _write(file, records, kinds, {MARK: json.dumps({"rows": ROWS, "column": json_column})})


def write_records(file: Path, records: Iterable[Record], columns: Mapping[str, Kind]) -> None:
    """Write one parquet file of the metadata alone. Raises as `write_pictures` does."""
    _write(file, (in_columns(record, columns) for record in records), columns, {})


def _with_image(picture: Picture, columns: Mapping[str, Kind], json_column: str | None) -> Record:
    image = {"bytes": picture.data, "path": picture.record["file_name"]}
    record = {IMAGE: image, **in_columns(picture.record, columns)}
    if json_column is not None:
        record[json_column] = beside(picture.record, columns)
    return record


def _write(
    file: Path, records: Iterable[Record], kinds: Mapping[str, Kind], notes: Mapping[bytes, str]
) -> None:
    """Write the records, which have all columns, and in the schema's metadata the `notes`."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    features = {name: {"_type": "Image"} for name, kind in kinds.items() if kind == "image"}
    schema = pyarrow.schema(
        {name: arrow_type(kind) for name, kind in kinds.items()},
        {b"huggingface": json.dumps({"info": {"features": features}}), **notes},
    )
    # Through a file of Python's own, an error of the system arrives with its number.
    with file.open("xb") as sink, ParquetWriter(sink, schema, write_page_checksum=True) as writer:
        group: list[Record] = []
        held = 0
        for record in records:
            group.append(record)
            held += len(record[IMAGE]["bytes"]) if IMAGE in features else 0
            if held >= GROUP_BYTES or len(group) == GROUP_ROWS:
                writer.write_batch(_batch(group, schema))
                group, held = [], 0
        if group:
            writer.write_batch(_batch(group, schema))


def _batch(records: list[Record], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow

    try:
        return pyarrow.RecordBatch.from_pylist(records, schema)
    except pyarrow.ArrowInvalid as error:
        raise OutputError(
            f"a column of the parquet cannot hold all its values unchanged: {error}; {_FILES}"
        ) from None
