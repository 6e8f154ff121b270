"""The prompt files of a manifest as one stream of lines, and what they held when they were checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import ManifestError
from jobs.line import Line, written_lines
from jobs.manifest_errors import MAX_TOLD
from jobs.manifest_parts import ROW_FIELDS, PromptLine, PromptSource
from jobs.manifest_relations import ColumnKinds
from jobs.prompt_files import json_lines, parquet, plain, separated
from jobs.prompt_files.find import TABLES, TEXTS, files_of
from jobs.prompt_files.lines import Record
from jobs.prompt_files.rows import Rows

if TYPE_CHECKING:
    from jobs.manifest import Manifest


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file's contents when it was checked."""

    path: Path
    sha256: str
    state: tuple[int, int, int]
    """What a change of the file changes."""


@dataclass(frozen=True, slots=True)
class Sources:
    """All prompt files of a manifest, checked."""

    files: tuple[SourceFile, ...]
    images: int
    """That their lines ask for, before the sweep multiplies them."""
    skipped: int
    """Rows left out because something is wrong with them."""
    skipped_rows: tuple[str, ...]
    """The first of those: `FILE:LINE: what`."""

    @property
    def identity(self) -> dict[str, str]:
        """path -> SHA-256, of every file."""
        return {str(file.path): file.sha256 for file in self.files}


def check_sources(manifest: Manifest) -> Sources:
    """Read every prompt file of `manifest` once, never held whole: its hash, and whether its rows are right.

    Raises ManifestError for a file that cannot be read, and with `on_bad_row: stop` for rows that are wrong,
    the first of them together: `FILE:LINE: field = value: …`.
    """
    files = tuple(_checked(path) for _, path in _files(manifest))
    images = wrong = 0
    told: list[str] = []
    for path, number, line in _rows(manifest):
        if isinstance(line, Line):
            images += line.images
            continue
        wrong += 1
        if len(told) < MAX_TOLD:
            told.append(f"{path}:{number}: {line}")
        elif manifest.on_bad_row == "stop":
            told.append(f"{path}: and more")
            break
    if wrong and manifest.on_bad_row == "stop":
        raise ManifestError("\n".join(told))
    for file in files:
        _refuse_if_changed(file)
    return Sources(files, images, wrong, tuple(told))


def lines(manifest: Manifest, sources: Sources | None = None) -> Iterator[Line]:
    """Every line of `manifest`: those that stand in it, then those of its prompt files, in order.

    Rows that are wrong are left out with `on_bad_row: skip`, else raise ManifestError. With `sources`, so
    does a file that is no longer what it was when it was checked.
    """
    yield from written_lines(manifest)
    if sources is not None and [file.path for file in sources.files] != [
        path for _, path in _files(manifest)
    ]:
        raise ManifestError("prompts_from: files came or went since they were checked: submit again")
    for path, number, line in _rows(manifest, sources):
        if isinstance(line, Line):
            yield line
        elif manifest.on_bad_row == "stop":
            raise ManifestError(f"{path}:{number}: {line}")


def _rows(
    manifest: Manifest, sources: Sources | None = None
) -> Iterator[tuple[Path, int, Line | ManifestError]]:
    kinds = ColumnKinds()
    for written in manifest.prompts:
        if isinstance(written, PromptLine):
            for name, value in ({} if written.columns is None else written.columns).items():
                kinds.trouble(name, value, "in the manifest")
    for at, (source, path) in enumerate(_files(manifest)):
        if sources is not None:
            _refuse_if_changed(sources.files[at])
        names = plain.FLAGS if path.suffix == ".txt" else _names(source)
        rows = Rows(path, source, names, manifest.settings, manifest.sweep, kinds, texts=path.suffix in TEXTS)
        unseen = path.suffix in TABLES
        for number, row in _records(path, source, names):
            if isinstance(row, ManifestError):
                yield path, number, row
                continue
            if unseen:
                unseen = False
                trouble = rows.names_trouble(row)
                if trouble is not None:
                    raise ManifestError(f"{path}:1: {trouble}")
            yield path, number, rows.line(row, number)
        if sources is not None:
            _refuse_if_changed(sources.files[at])


def _files(manifest: Manifest) -> Iterator[tuple[PromptSource, Path]]:
    for source in manifest.prompts_from:
        for path in files_of(source):
            yield source, path


def _records(path: Path, source: PromptSource, names: Mapping[str, str]) -> Iterator[Record]:
    match path.suffix:
        case ".jsonl":
            return json_lines.records(path)
        case ".csv" | ".tsv":
            return separated.records(path)
        case ".txt":
            return plain.records(path)
        case ".parquet":
            return parquet.records(path, {*names, *source.columns} if source.ignore_others else None)
    raise AssertionError(f"{path}: its format was checked with the manifest")


def _names(source: PromptSource) -> dict[str, str]:
    """What the source calls our fields -> the fields."""
    return {source.fields.get(field, field): field for field in ROW_FIELDS} | {
        name: field for field, name in source.fields.items()
    }


def _checked(path: Path) -> SourceFile:
    try:
        state = _state(path)
        with path.open("rb") as file:
            return SourceFile(path, hashlib.file_digest(file, "sha256").hexdigest(), state)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None


def _state(path: Path) -> tuple[int, int, int]:
    """What no change leaves as it is: inode, size and time of change."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _refuse_if_changed(file: SourceFile) -> None:
    try:
        unchanged = _state(file.path) == file.state
    except OSError:
        unchanged = False
    if not unchanged:
        raise ManifestError(f"{file.path}: changed while it was being submitted: submit again")
