"""Prompts in .csv and .tsv: a header, then a prompt a row; cells in quotes may hold newlines."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import ManifestError
from jobs.prompt_files.lines import Record, not_utf8
from jobs.yaml_marks import printable


def records(file: Path) -> Iterator[Record]:
    """Each row by the header's names, at the number of its first line; blank lines are left aside.

    Raises ManifestError for a header that no row can be read by.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
            header = _header(file, reader)
            while True:
                number = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, ManifestError(f"not a row: {error}")
                    continue
                text = "".join(cells)
                if not text.isascii() and (trouble := not_utf8(text)) is not None:
                    yield number, trouble
                elif len(cells) == len(header):
                    yield number, dict(zip(header, cells, strict=True))
                elif cells:
                    what = f"has {len(cells)} cells, and the header {len(header)}: put cells that hold a"
                    separator = "tab" if file.suffix == ".tsv" else "comma"
                    yield number, ManifestError(f"{what} {separator} or a newline in double quotes")
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from None


def _header(file: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise ManifestError(f"{file}:1: not a header: {error}") from None
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        what = printable(twice) or "a column without a name"
        raise ManifestError(f"{file}:1: {what} stands twice: rename one")
    if not header:
        raise ManifestError(f"{file}:1: is empty: the first line names the columns")
    return header
