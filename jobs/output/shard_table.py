"""A shard as a parquet: a line for every image, rendered or failed, in img2dataset's columns and ours.

    key caption status error_message width height sha256        img2dataset's
    image_id negative_prompt … id COLUMN … job_id rendered_… flagged prompt_cut command

`status` is success or failed_to_render; a failure has `error_message` and `command`, which renders it again.
Every file of a dataset should have the same types, so ours are fixed. A setting that was added later has a
column where an image of the shard is not at its default. A user's column has the type that
holds the shard's values, text (JSON for what is no text) when none does, and is called `column_NAME` where
img2dataset has such a name. The tar's KEY.json are the metadata to the letter; this is for tools that read
tables.
Source: img2dataset's README ("Output format").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.columns import INDEX
from jobs.output.arrow_columns import arrow_type, check_pyarrow, fitted
from jobs.output.column_kinds import Kind, kind_of, merged
from jobs.output.lines import has_index
from jobs.output.metadata import Failure
from jobs.output.parquet_pieces import open_bounded
from jobs.output.shard_names import SHARD_LIMIT
from jobs.plain_file import MAX_OF_OUTPUT
from jobs.request import IMAGE_SETTINGS

if TYPE_CHECKING:
    import pyarrow

SUCCESS, FAILED = "success", "failed_to_render"

_FIRST: dict[str, Kind] = {
    "key": "string", "caption": "string", "status": "string", "error_message": "string",
    "width": "int64", "height": "int64", "sha256": "string",
    "image_id": "string", INDEX: "int64",
    **{name: setting.values.column for name, setting in IMAGE_SETTINGS.items() if name != "prompt"},
    "id": "string",
}  # fmt: skip
_ADDED_LATER = {name: setting.default for name, setting in IMAGE_SETTINGS.items() if setting.added_later}
"""The defaults of settings that have no column while all images are at them."""
_LAST: dict[str, Kind] = {
    "job_id": "string", "rendered_precision": "string", "rendered_rows": "int64", "rendered_device": "string",
    "rendered_versions": "string", "rendered_mode": "string", "flagged": "string",
    "prompt_cut": "string", "command": "string",
}  # fmt: skip
_CALLED_OTHERWISE = frozenset({"file_name", "text"})
"""Names in a metadata record that the table leaves out: `key` and `caption` say the same."""
_NOT_IN_RECORDS = frozenset({"key", "caption", "status", "error_message", "command"})
"""Our names that a user's metadata column may have too."""


def check_parquet() -> None:
    """Raises OutputError with the remedy where parquet cannot be written."""
    check_pyarrow("layout = webdataset", "use layout: files")


def shard_table(
    key: Callable[[int], str], records: Sequence[Mapping[str, Any]], failures: Sequence[Failure]
) -> pyarrow.Table:
    """The shard as a table, in the order of its positions, of which `key` makes keys."""
    import pyarrow as pa  # an extra, and slow to import

    lines = [_done(record) for record in records] + [_failed(key, failure) for failure in failures]
    lines.sort(key=lambda line: line["key"])
    used = {name for line in lines for name in line}
    kinds = {name: kind for name, kind in _FIRST.items() if name not in _ADDED_LATER or name in used}
    fixed = {*_FIRST, *_LAST}
    if not any(map(has_index, records)):
        # An earlier version's shard, where a user's column may have the name.
        del kinds[INDEX]
        fixed.remove(INDEX)
    for line in lines:
        for name, value in line.items():
            if name not in fixed:
                kinds[name] = merged(kinds.get(name), kind_of(value))
    kinds |= {name: kind for name, kind in _LAST.items() if name != "prompt_cut" or name in used}
    columns = {
        name: _column([line.get(name, _ADDED_LATER.get(name)) for line in lines], kind)
        for name, kind in kinds.items()
    }
    return pa.table(columns)


def parquet_bytes(table: pyarrow.Table) -> bytes:
    """The table as a parquet file. Equal tables give equal bytes under one version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_table(data: bytes) -> pyarrow.Table:
    """The table of a parquet file. Raises ValueError saying what is wrong with it."""
    import pyarrow as pa

    try:
        parquet = open_bounded(pa.BufferReader(data))
        schema = parquet.schema
        parts, held = [], 0
        for _number, part in parquet.pieces(schema.names, SHARD_LIMIT):
            parts.append(part)
            held += part.nbytes
            if held > MAX_OF_OUTPUT:
                raise ValueError(f"holds more than {MAX_OF_OUTPUT >> 20} MiB")
        table = pa.Table.from_batches(parts).cast(schema) if parts else schema.empty_table()
        table.validate(full=True)
        return table.select(table.schema.names)  # a name may be no UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"is no parquet ({str(error).splitlines()[0]})") from None


def by_another_pyarrow(data: bytes) -> bool:
    """Whether a parquet file which `read_table` reads says that another version of pyarrow wrote it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = str(pq.read_metadata(pa.BufferReader(data)).created_by)
    version = re.fullmatch(r"parquet-cpp-arrow version (\d+\.\d+\.\d+)", writer)
    return version is not None and version[1] != pa.cpp_version


def _done(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": str(record["file_name"]).partition(".")[0],
        "caption": record["text"],
        "status": SUCCESS,
        **{name_in_table(name): value for name, value in record.items() if name not in _CALLED_OTHERWISE},
    }


def _failed(key: Callable[[int], str], failure: Failure) -> dict[str, Any]:
    request = failure.entry.request.written()
    return {
        "key": key(failure.position),
        "caption": request.pop("prompt"),
        "status": FAILED,
        "error_message": failure.reason,
        "image_id": failure.image_id,
        **request,
        "id": failure.entry.id,
        **{name_in_table(name): value for name, value in failure.entry.columns.items()},
        "job_id": failure.job_id,
        "command": failure.command,
    }


def name_in_table(name: str) -> str:
    """What the table calls a column of the metadata: no two are called the same."""
    return f"column_{name}" if name in _NOT_IN_RECORDS or name.startswith("column_") else name


def name_in_records(name: str) -> str | None:
    """What the metadata call a column of the table; None for one that they do not have."""
    if name in _NOT_IN_RECORDS:
        return None
    return name.removeprefix("column_")


def _column(values: list[Any], kind: Kind) -> pyarrow.Array:
    """The values as one column; as texts where no other type holds them unchanged."""
    import pyarrow as pa

    try:
        return pa.array([fitted(value, kind) for value in values], arrow_type(kind))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # as of an integer that no float64 is
        return pa.array([fitted(value, "string") for value in values], pa.string())
