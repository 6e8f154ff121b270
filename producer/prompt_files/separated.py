"""Prompts in .csv and .tsv: a header, then a prompt a row; cells in quotes may hold newlines.

A mistake in a row of one line is a mistake of that row. A wrong row of several lines may be thousands of rows
after a stray quote, and the next row may begin anywhere: that is a mistake of the file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from jobs.errors import ManifestError
from jobs.wording import printable, shortened
from producer.manifest.parts import first_twice
from producer.manifest.text_lines import Record, bounded_lines, not_utf8

_LINE_END = re.compile(r"\r\n|\r|\n")
_TORN = "a quote opened on line {} is {}: close it where its cell ends, or fix the row"


def records(file: Path, names_trouble: Callable[[Collection[str]], str | None]) -> Iterator[Record]:
    """Each row by the header's names, at the number of its first line; blank lines are ignored.

    `names_trouble` says why no row can be read by the header's names, or None. Raises ManifestError for such
    a header, and for a row that is wrong and does not end on its line.
    """
    separator, said = ("\t", "tab") if file.suffix == ".tsv" else (",", "comma")
    remedy = (
        f'put a cell that holds a {said}, a quote or a newline in double quotes, each quote in it twice ("")'
    )
    lines: list[str] = []
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(_kept(bounded_lines(file, stream), lines), delimiter=separator, strict=True)
            header = _header(reader, names_trouble)
            if isinstance(header, ManifestError):
                raise ManifestError(f"{file}:1: {_on_one_line(header, file, 1, lines, separator)}")
            while True:
                lines.clear()
                number = reader.line_num + 1
                wrong = None
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
                        wrong = not_utf8(text)
                    if wrong is None and len(cells) == len(header):
                        yield number, dict(zip(header, cells, strict=True))
                        continue
                    if not cells:
                        continue
                    if wrong is None:
                        what = f"has {len(cells)} cells, and the header {len(header)}"
                        wrong = ManifestError(f"{what}: {remedy}")
                yield number, _on_one_line(wrong, file, number, lines, separator)
    except FileNotFoundError:
        raise ManifestError(f"{file}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{file}: cannot be read: {error.strerror}") from None


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
        header = next(reader, [])
    except csv.Error as error:
        return ManifestError(f'not a header: {error}: write a quote inside a quoted name twice ("")')
    if not header:
        return ManifestError("is empty: the first line names the columns")
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
    quoted = re.compile(f'(?:\\A|{separator})"([^"]*(?:""[^"]*)*)("?)')
    row = "".join(lines)
    quotes = [quote for quote in quoted.finditer(row) if not quote[2] or _LINE_END.search(quote[1])]
    if not quotes:
        return error
    last = number + len(lines) - 1
    opened, closed = (number + len(_LINE_END.findall(row, 0, end)) for end in quotes[-1].span(1))
    torn = _TORN.format(opened, f"closed on line {closed}" if quotes[-1][2] else f"still open on line {last}")
    place = f"{file}:{number}-{last}" if last > number else f"{file}:{number}"
    raise ManifestError(f"{place}: {torn}: {error}")
