"""The lines of a text file, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jobs.errors import ManifestError

Record = tuple[int, dict[str, Any] | ManifestError]
"""A row: the number of its first line from 1, and its values by the file's own names or what is wrong."""

MAX_LINE = 16 << 20
"""Characters; a longer line is no line of prompts, and would have to be held whole."""


def text_lines(file: Path) -> Iterator[tuple[int, str | ManifestError]]:
    """Each line (\\n or \\r\\n, which are left out) with its number from 1, or why it cannot be read.

    UTF-8, with or without a byte order mark. Raises ManifestError for a file that is not there, for a line
    beyond all bounds and for one that may be several.
    """
    try:
        # Bytes that are no UTF-8 become lone surrogates, so that only their own line is lost.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
            for number, line in enumerate(bounded_lines(file, stream), 1):
                text = line.removesuffix("\n").rstrip("\r")
                if "\r" in text:
                    raise ManifestError(
                        f"{file}:{number}: holds a carriage return, which may end a line: end lines with \\n "
                        "or \\r\\n, and remove it elsewhere"
                    )
                if not text.isascii() and (trouble := not_utf8(text)) is not None:
                    yield number, trouble
                    continue
                yield number, text
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from None


def bounded_lines(file: Path, stream: IO[str]) -> Iterator[str]:
    """The lines of `stream` with their ends. Raises ManifestError for a line beyond all bounds."""
    number = 0
    while line := stream.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise ManifestError(
                f"{file}:{number}: the line is longer than {MAX_LINE >> 20} MiB: a prompt a line"
            )
        yield line


def not_utf8(text: str) -> ManifestError | None:
    """What to say of a text read with `surrogateescape` that held bytes beyond UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        bad = ord(text[error.start]) & 0xFF
        return ManifestError(f"is not UTF-8 (byte 0x{bad:02x}): save the file as UTF-8")
    return None
