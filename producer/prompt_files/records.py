"""The records of one prompt file, by its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import ManifestError
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_files import format_of, id_of
from producer.manifest.text_lines import Record
from producer.prompt_files import json_file, json_lines, parquet, plain, separated
from producer.prompt_files.nested import Paths
from producer.prompt_files.row_reader import RowReader


def records(path: Path, source: PromptSource, table: RowReader, left_out: Counter[str]) -> Iterator[Record]:
    """Each row of the file with its number; `left_out` takes what `plain.records` counts."""
    match format_of(path):
        case ".jsonl":
            return _opened(json_lines.records(path, source), table.paths)
        case ".json":
            return _opened(json_file.records(path, source), table.paths)
        case ".csv" | ".tsv":
            return separated.records(path, source, table.roles.trouble)
        case ".txt" if source.one_per_file:
            return plain.one_record(path, source, id_of(source, path))
        case ".txt":
            return plain.records(path, source, left_out)
        case ".parquet":
            return parquet.records(path, table.roles, table.paths)
    raise AssertionError(f"{path}: its format was checked with the manifest")


def _opened(records: Iterator[Record], paths: Paths) -> Iterator[Record]:
    """The records with a value at each path in place of their objects."""
    if not paths:
        return records
    return ((number, row if isinstance(row, ManifestError) else paths.opened(row)) for number, row in records)
