"""Prompts in .parquet, by pyarrow (the extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.errors import ManifestError
from jobs.prompt_files.lines import Record
from jobs.yaml_marks import printable

_ROWS = 4096
"""Rows held at a time."""
_BUFFER = 1 << 20
"""Bytes read at a time: without it pyarrow holds a whole column of a row group, often all of the file."""


def records(file: Path, wanted: set[str] | None) -> Iterator[Record]:
    """Each row with its number from 1; of the columns only those `wanted` (None: all) are read.

    Raises ManifestError when pyarrow is not installed and for a file that is no parquet.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise ManifestError(
            f"{file}: needs pyarrow: pip install 'imagemill[parquet]', or use .jsonl or .csv"
        ) from None
    number = 0
    try:
        with ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            names = table.schema_arrow.names
            columns = names if wanted is None else [name for name in names if name in wanted]
            for batch in table.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        where = f"{file}:{number + 1}" if number else str(file)
        raise ManifestError(f"{where}: cannot be read as parquet: {printable(str(error))}") from None
