"""The prompt files of a manifest as one stream of lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jobs.bounds import Text
from jobs.errors import ManifestError
from jobs.file_hash import FileState, file_sha256, file_state
from jobs.output.nested_kinds import ColumnTypes, with_json
from jobs.wording import printable
from producer.manifest.line import Line, line_of, written_lines
from producer.manifest.manifest import Manifest
from producer.manifest.parts import ROW_FIELDS, ROW_VALUES, PromptLine, PromptSource
from producer.manifest.pipeline_check import PipelineCheck
from producer.manifest.problems import MAX_REPORTED
from producer.manifest.relations import ColumnKinds
from producer.manifest.source_files import TEXTS, files_of, source_trouble
from producer.manifest.text_lines import Record
from producer.prompt_files import json_lines, parquet, plain, separated
from producer.prompt_files.ahead import read_ahead
from producer.prompt_files.row_reader import RowReader

_ROWS = 512
LARGE = 8 << 20
"""Bytes of prompt files, about 80,000 prompts, that one process reads in half a second."""


@dataclass(slots=True)
class Reading:
    """What one pass over the prompt files of a manifest found; complete when the pass is."""

    sha256: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of every file that was begun, by its path."""
    skipped: int = 0
    """Rows left out because something is wrong with them."""
    skipped_rows: list[str] = field(default_factory=list)
    """The first of those: `FILE:LINE: what`."""
    on_skipped: Callable[[str], None] = field(default=lambda row: None, compare=False)
    """Called with each of them."""
    json_columns: Collection[str] = ()
    """The user's columns that lines are to have as JSON text."""
    columns: ColumnTypes = field(default_factory=ColumnTypes, compare=False)
    """What the user's columns hold, before any is JSON text."""

    def taken(self, line: Line) -> Line:
        """The line with its columns as they are written, once what they hold was taken in."""
        self.columns.add(line.columns)
        return (
            line._replace(columns=with_json(line.columns, self.json_columns)) if self.json_columns else line
        )


Row = str | Line | ManifestError
"""A prompt whose row says nothing else, which takes the least time to hand over; a line; or all that is wrong
with the row: `FILE:LINE: what`."""


class Rows(NamedTuple):
    """Some rows of one file, in order; the last of a file may be none."""

    path: str
    sha256: str
    rows: list[Row]


def lines(
    manifest: Manifest, reading: Reading | None = None, check: PipelineCheck | None = None
) -> Iterator[Line]:
    """Every line of `manifest`: those in it, then those of its prompt files, in order.

    Files are streamed, never held whole; large ones are read by a process of their own, so that two cores
    work. `reading` records what they held; `check` finds rows that the model's class does not take. Raises
    ManifestError for a file that cannot be read or that changes while it is, and, with `on_bad_row: stop`,
    for rows that are wrong, the first of them together.
    """
    reading = Reading() if reading is None else reading
    for line in written_lines(manifest):
        yield reading.taken(line) if line.columns else line
    _, *unsaid = line_of({"prompt": ""}, manifest.settings)
    for path, sha256, rows in (
        read_ahead(partial(source_rows, check=check), manifest)
        if _large(manifest)
        else source_rows(manifest, check)
    ):
        reading.sha256[path] = sha256
        for row in rows:
            if not isinstance(row, ManifestError):
                # After a row that stops the submission, the others are only checked.
                if reading.skipped == 0 or manifest.on_bad_row == "skip":
                    if isinstance(row, str):
                        yield Line._make((row, *unsaid))
                    else:
                        yield reading.taken(row) if row.columns else row
                continue
            reading.skipped += 1
            reading.on_skipped(str(row))
            if len(reading.skipped_rows) < MAX_REPORTED:
                reading.skipped_rows.append(str(row))
            elif manifest.on_bad_row == "stop":
                raise ManifestError("\n".join([*reading.skipped_rows, f"{path}: and more"]))
    if reading.skipped and manifest.on_bad_row == "stop":
        raise ManifestError("\n".join(reading.skipped_rows))


def source_rows(manifest: Manifest, check: PipelineCheck | None = None) -> Iterator[Rows]:
    """The rows of every prompt file of `manifest`, some hundreds at a time. Raises ManifestError."""
    kinds = ColumnKinds()
    for written in manifest.prompts:
        if isinstance(written, PromptLine):
            for name, value in ({} if written.columns is None else written.columns).items():
                kinds.trouble(name, value, "in the manifest")
    for source, path in _files(manifest):
        state = _state(path)
        sha256 = _sha256(path)
        rows = _rows(manifest, source, path, kinds, check)
        # A file without rows is one that was read.
        while len(some := list(islice(rows, _ROWS))) == _ROWS:
            yield Rows(str(path), sha256, some)
        yield Rows(str(path), sha256, some)
        if _state(path) != state:
            raise ManifestError(f"{path}: changed while it was being read: run the same command again")


def _rows(
    manifest: Manifest, source: PromptSource, path: Path, kinds: ColumnKinds, check: PipelineCheck | None
) -> Iterator[Row]:
    names = plain.FLAGS if path.suffix == ".txt" else _names(source)
    table = RowReader(
        path, source, names, manifest.settings, manifest.sweep, kinds, texts=path.suffix in TEXTS, check=check
    )
    one_line = {name for name, field in names.items() if not isinstance(ROW_VALUES.get(field, Text()), Text)}
    for number, row in _records(path, source, names, table):
        line: Line | ManifestError
        if isinstance(row, ManifestError):
            line = row
        else:
            prompt = table.prompt_alone(row)
            if prompt is not None:
                yield prompt
                continue
            line = table.line(row, number)
            if isinstance(line, ManifestError) and path.suffix in (".csv", ".tsv"):
                line = separated.wrong_row(line, path, number, row, one_line)
        trouble = printable(str(line)) if isinstance(line, ManifestError) else None
        yield line if trouble is None else ManifestError(f"{path}:{number}: {trouble}")


def _files(manifest: Manifest) -> Iterator[tuple[PromptSource, Path]]:
    seen = set[Path]()
    for source in manifest.prompts_from:
        # A manifest is loaded some time before its files are read.
        if (trouble := source_trouble(source)) is not None:
            raise ManifestError(f"prompts_from = {source.file}: {trouble}")
        for path in files_of(source):
            if path in seen:
                raise ManifestError(f"prompts_from: {path} is named twice: remove one")
            seen.add(path)
            yield source, path


def _records(
    path: Path, source: PromptSource, names: Mapping[str, str], table: RowReader
) -> Iterator[Record]:
    match path.suffix:
        case ".jsonl":
            return json_lines.records(path)
        case ".csv" | ".tsv":
            return separated.records(path, table.names_trouble)
        case ".txt":
            return plain.records(path)
        case ".parquet":
            wanted = table.wants if source.ignore_others else None
            return parquet.records(path, names, wanted, table.names_trouble)
    raise AssertionError(f"{path}: its format was checked with the manifest")


def _names(source: PromptSource) -> dict[str, str]:
    """What the source calls our fields -> the fields."""
    return {source.fields.get(field, field): field for field in ROW_FIELDS} | {
        name: field for field, name in source.fields.items()
    }


def _large(manifest: Manifest) -> bool:
    """Whether reading takes longer than starting a process for it."""
    return sum(_state(path).size for _source, path in _files(manifest)) >= LARGE


def _state(path: Path) -> FileState:
    try:
        return file_state(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ManifestError:
    return ManifestError(f"{path}: cannot be read: {error.strerror}")
