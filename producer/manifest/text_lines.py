"""The lines of a text file, one at a time."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jobs.errors import ManifestError
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_yaml import key_offer
from producer.manifest.unpacked import unpacked

Record = tuple[int, dict[str, Any] | ManifestError]
"""A row: the number of its first line from 1, and its values by the file's own names or what is wrong."""

MAX_LINE = 16 << 20
"""Characters; a longer line is no line of prompts, and would have to be held whole."""
_HEAD = 4096
"""Bytes that show which encoding a file has."""
_UTF8 = "utf-8-sig"
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How files begin that say which encoding they have; UTF-32's longer ones first."""


class WrongEncoding(ManifestError):
    """Text is not in the encoding that the file is read in."""


def text_lines(file: Path, source: PromptSource | None) -> Iterator[tuple[int, str | ManifestError]]:
    """Each line (\\n or \\r\\n, which are left out) with its number from 1, or why it cannot be read.

    `source` says which encoding the file has; without one it is as its byte order mark says, and UTF-8
    without a mark. None: the manifest has no key for it. Raises ManifestError for a file that cannot be read,
    for a line beyond all bounds and for one that may be several.
    """
    with opened(file, source, newline="\n") as stream:
        for number, line in enumerate(bounded_lines(file, stream), 1):
            text = line.removesuffix("\n").rstrip("\r")
            if "\r" in text:
                raise ManifestError(
                    f"{file}:{number}: holds a carriage return, which may end a line: end lines with \\n "
                    "or \\r\\n, and remove it elsewhere"
                )
            if not text.isascii() and (trouble := undecodable(text, stream, source)) is not None:
                yield number, trouble
                continue
            yield number, text


@contextmanager
def opened(file: Path, source: PromptSource | None, *, newline: str | None) -> Iterator[IO[str]]:
    """The text of a file, unpacked; `undecodable` says of a piece of it whether it was in the encoding.

    Raises ManifestError for a file that cannot be read, and for one whose beginning is in another encoding.
    """
    encoding = None if source is None else source.encoding
    with unpacked(file) as contents:
        head = contents.peek(_HEAD)[:_HEAD]
        marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        if (trouble := _encoding_trouble(head, marked, encoding, source)) is not None:
            raise WrongEncoding(f"{file}: {trouble}")
        if marked is not None:
            encoding = marked
        elif encoding is not None and codecs.lookup(encoding).name in ("utf-16", "utf-32"):
            # Python asks for a mark where no order of the bytes is named. Windows' is little-endian.
            encoding = f"{codecs.lookup(encoding).name}-le" if (order := _unmarked(head)) is None else order
        # What cannot be decoded becomes lone surrogates, so that only its own line is lost.
        if encoding is None or _is_utf8(encoding):
            text = io.TextIOWrapper(contents, _UTF8, "surrogateescape", newline)
        else:
            text = io.TextIOWrapper(contents, encoding, _ESCAPED, newline)
        with text:
            yield text


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


def undecodable(text: str, stream: IO[str], source: PromptSource | None) -> WrongEncoding | None:
    """What to say of a text that was read from the stream, where its bytes were not in the encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        bad = f"byte 0x{ord(text[error.start]) & 0xFF:02x}"
        encoding = getattr(stream, "encoding", None) or _UTF8
        if encoding != _UTF8:
            return WrongEncoding(f"is not {encoding} ({bad}): correct `encoding`, or save the file as UTF-8")
        if source is None:
            return WrongEncoding(f"is not UTF-8 ({bad}): save the file as UTF-8")
        offer = key_offer(source, "encoding: cp1252")
        return WrongEncoding(
            f"is not UTF-8 ({bad}): save the file as UTF-8, or name its encoding; for Western Europe's of "
            f"Windows {offer}"
        )
    return None


def _encoding_trouble(
    head: bytes, marked: str | None, encoding: str | None, source: PromptSource | None
) -> str | None:
    """Why a file that begins with these bytes is in another encoding than it is read in, and the remedy."""
    if encoding is None:
        looks = None if marked is not None else _unmarked(head)
        if looks is None:
            return None
        remedy = "save it as UTF-8" if source is None else key_offer(source, f"encoding: {looks}")
        return f"looks like {looks.upper()}, and is read as UTF-8: {remedy}"
    name = codecs.lookup(encoding).name
    if marked is not None:
        right = name.startswith(marked)
        return None if right else f"is {marked.upper()}, and not {encoding}: write `encoding: {marked}`"
    if _is_utf8(encoding) or not head or 0 in head:
        return None
    # Hardly any text in another encoding is UTF-8 by chance, unless it is ASCII too.
    if _decodes(head) and (name.startswith(("utf-16", "utf-32")) or not head.isascii()):
        return f"is UTF-8, and not {encoding}: remove `encoding`"
    return None


def _unmarked(head: bytes) -> str | None:
    """Which UTF-16 the bytes look like, as Latin text does; None when they do not."""
    first, second = head[0::2].count(0), head[1::2].count(0)
    most = 0.6 * len(head) / 2
    if len(head) % 2 == 0 and second > most and first == 0:
        return "utf-16-le"
    if len(head) % 2 == 0 and first > most and second == 0:
        return "utf-16-be"
    return None


def _decodes(head: bytes) -> bool:
    """Whether the bytes are the beginning of UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What stands for bytes that cannot be decoded: surrogateescape does so for bytes from 128 on alone."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(0xDC00 + error.object[error.start]), error.end


_ESCAPED = "imagemill-escaped"
codecs.register_error(_ESCAPED, _escape)
