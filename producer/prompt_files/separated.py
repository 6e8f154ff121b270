"""Prompts in .csv and .tsv: a header, then a prompt a row; cells in quotes may hold newlines.

A mistake in a row of one line is a mistake of that row. A wrong row of several lines may be thousands of rows
after a stray quote, and the next row may begin anywhere: that is a mistake of the file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from jobs.errors import ManifestError
from jobs.wording import printable, shortened
from producer.manifest.parts import first_twice
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_files import format_of
from producer.manifest.source_yaml import key_offer
from producer.manifest.text_lines import (
    Record,
    WrongEncoding,
    bounded_lines,
    opened,
    undecodable,
)

_LINE_END = re.compile(r"\r\n|\r|\n")
_TORN = "a quote opened on line {} is {}: close it where its cell ends, or fix the row"


def records(
    file: Path, source: PromptSource, names_trouble: Callable[[Collection[str]], str | None]
) -> Iterator[Record]:
    """Each row by the header's names, at the number of its first line; blank lines are ignored.

    `names_trouble` says why no row can be read by the header's names, or None. Raises ManifestError for such
    a header, for a row that is wrong and does not end on its line, and, unless the source says what quotes
    are, for a row that is only right, or right too, where they are characters.
    """
    separator = source.separator
    if separator is None:
        separator = "\t" if format_of(file) == ".tsv" else ","
    unquoted = source.quoting == "none"
    lines: list[str] = []
    with opened(file, source, newline="") as stream:
        kept = _kept(bounded_lines(file, stream), lines)
        reader = csv.reader(
            kept, delimiter=separator, quoting=csv.QUOTE_NONE if unquoted else csv.QUOTE_MINIMAL, strict=True
        )
        header = _header(reader, names_trouble)
        if header == []:
            return
        text = "".join(lines)
        if not text.isascii() and (undecoded := undecodable(text, stream, source)) is not None:
            raise WrongEncoding(f"{file}:1: {undecoded}")
        if isinstance(header, ManifestError):
            other = _other_separator(lines[0], separator)
            if other is not None:
                offer = key_offer(source, f"separator: {json.dumps(other)}")
                raise ManifestError(
                    f"{file}:1: the columns look separated by a {_said(other)}, and not by a "
                    f"{_said(separator)}: {offer}"
                )
            raise ManifestError(f"{file}:1: {_on_one_line(header, file, 1, lines, separator)}")
        remedy = _remedy(separator, header, source)
        while True:
            lines.clear()
            number = reader.line_num + 1
            wrong: ManifestError | None = None
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                longer = f"a cell of more than {csv.field_size_limit()} characters in .jsonl"
                wrong = ManifestError(f"not a row: {error}: {remedy}, and {longer}")
            else:
                text = "".join(cells)
                if not text.isascii():
                    wrong = undecodable(text, stream, source)
                if wrong is None and len(cells) == len(header):
                    unsure = len(lines) > 1 and source.quoting is None and len(header) > 1
                    if unsure and _are_rows(lines, separator, header):
                        raise _one_or_several(file, number, lines, source)
                    yield number, dict(zip(header, cells, strict=True))
                    continue
                if not cells:
                    continue
                if wrong is None:
                    what = f"has {len(cells)} cells, and the header {len(header)}"
                    wrong = ManifestError(f"{what}: {remedy}")
            if unquoted:
                yield number, wrong
                continue
            doubtful = (
                source.quoting is None
                and not isinstance(wrong, WrongEncoding)
                and '"' in lines[0]
                and _are_rows(lines[:1], separator, header)
            )
            if doubtful:
                offer = key_offer(source, "quoting: none")
                wrong = ManifestError(f"{wrong}; if quotes belong to the texts, {offer}")
            wrong = _on_one_line(wrong, file, number, lines, separator)
            if doubtful:
                raise ManifestError(f"{file}:{number}: {wrong}")
            yield number, wrong


def _remedy(separator: str, header: list[str], source: PromptSource) -> str:
    """What to do about a row that does not fit the header."""
    said = _said(separator)
    if source.quoting == "none":
        return f"remove the {said} from its cells, or choose another `separator`"
    remedy = (
        f'put a cell that holds a {said}, a quote or a newline in double quotes, each quote in it twice ("")'
    )
    if len(header) == 1 and source.separator is None and separator == ",":
        offer = key_offer(source, 'separator: "\\t"')
        remedy += f"; or, since there is one column, {offer}"
    return remedy


def _said(separator: str) -> str:
    return {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}.get(separator, repr(separator))


def _other_separator(line: str, separator: str) -> str | None:
    """The character that makes more columns of a header than the separator does; None when none does."""
    others = {other: line.count(other) for other in (",", ";", "\t", "|") if other != separator}
    most = max(others, key=lambda other: others[other])
    return most if others[most] > line.count(separator) else None


def _are_rows(lines: list[str], separator: str, header: list[str]) -> bool:
    """Whether each line is a row where quotes are characters."""
    bare = (line.rstrip("\r\n") for line in lines)
    return all(text.count(separator) == len(header) - 1 for text in bare if text)


def _one_or_several(file: Path, number: int, lines: list[str], source: PromptSource) -> ManifestError:
    """What to say of a row of several lines each of which is a row where quotes are characters."""
    last = number + len(lines) - 1
    return ManifestError(
        f"{file}:{number}-{last}: is one row if quotes enclose cells, and {len(lines)} rows if quotes belong "
        f"to the texts: for one row {key_offer(source, 'quoting: minimal')}; for several, quoting: none"
    )


def wrong_row(
    error: ManifestError, file: Path, number: int, row: Mapping[str, str], one_line: Collection[str]
) -> ManifestError:
    """What is wrong with the values of a row, and the row's last line when that is not line `number`.

    Raises ManifestError when a cell holds a newline in one of the columns `one_line`, which never do.
    """
    last, torn = number, None
    for name, cell in row.items():
        opened, last = last, last + len(_LINE_END.findall(cell))
        if last > opened and name in one_line:
            torn = _TORN.format(opened, f"closed on line {last}")
    if torn is not None:
        raise ManifestError(f"{file}:{number}-{last}: {torn}: {printable(str(error))}")
    return error if last == number else ManifestError(f"{error} (the row ends on line {last})")


def _kept(lines: Iterator[str], kept: list[str]) -> Iterator[str]:
    """The lines, each of which is added to `kept` as it is taken."""
    for line in lines:
        kept.append(line)
        yield line


def _header(
    reader: Iterator[list[str]], names_trouble: Callable[[Collection[str]], str | None]
) -> list[str] | ManifestError:
    try:
        header = next((row for row in reader if row), [])
    except csv.Error as error:
        return ManifestError(f'not a header: {error}: write a quote inside a quoted name twice ("")')
    if not header:
        return header
    twice = first_twice(header)
    if twice is not None:
        what = shortened(str(twice)) or "a column without a name"
        return ManifestError(f"{what} occurs twice: rename one")
    trouble = names_trouble(header)
    return header if trouble is None else ManifestError(printable(trouble))


def _on_one_line(
    error: ManifestError, file: Path, number: int, lines: list[str], separator: str
) -> ManifestError:
    """The error, of the row in `lines` from line `number` on.

    Raises ManifestError when the row has several lines, and when a quote is open at its end.
    """
    # A quote opens a cell at its beginning alone; elsewhere it is a character like any other. What follows a
    # mistake counts too: the reader continues with the next line, even in the middle of a cell.
    quoted = re.compile(f'(?:\\A|{re.escape(separator)})"([^"]*(?:""[^"]*)*)("?)')
    row = "".join(lines)
    quotes = [quote for quote in quoted.finditer(row) if not quote[2] or _LINE_END.search(quote[1])]
    if not quotes:
        return error
    last = number + len(lines) - 1
    opened, closed = (number + len(_LINE_END.findall(row, 0, end)) for end in quotes[-1].span(1))
    torn = _TORN.format(opened, f"closed on line {closed}" if quotes[-1][2] else f"still open on line {last}")
    place = f"{file}:{number}-{last}" if last > number else f"{file}:{number}"
    raise ManifestError(f"{place}: {torn}: {error}")
