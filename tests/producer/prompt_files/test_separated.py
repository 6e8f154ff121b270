"""A row of a .csv is given, reported, or stops its file; none vanishes behind a quote."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ManifestError
from producer.manifest.manifest import Manifest
from producer.prompt_files.separated import records
from producer.prompt_files.sources import Reading, lines

TORN = ": close it where its cell ends, or fix the row: "
MANY = "".join(f"a fox,{n}\n" for n in range(5000))
LONG = "x" * (csv.field_size_limit() + 1)


def _given(file: Path, contents: str | bytes, **source: Any) -> tuple[list[str], list[str]]:
    """The prompts and what is said of the rows that are skipped."""
    file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    found = {"file": str(file), "ignore_others": True} | source
    manifest = {"name": "cats", "model": "instant", "prompts_from": [found], "on_bad_row": "skip"}
    reading = Reading()
    prompts = [line.prompt for line in lines(Manifest.from_json(manifest), reading)]
    assert reading.skipped == len(reading.skipped_rows)
    return prompts, [row.removeprefix(f"{file}:") for row in reading.skipped_rows]


@pytest.mark.parametrize(
    ("rows", "place", "quote", "what"),
    [
        # Never closed; closed by the next row with a quote; and quotes in a cell without any open nothing.
        (
            f'a,1\n"a fox,2\n{MANY}',
            "3-5003",
            "3 is still open on line 5003",
            "not a row: unexpected end of data",
        ),
        (f'a,1\n"a fox,2\n{MANY}"a dog",3\n{MANY}', "3-5004", "3 is closed on line 5004", "not a row: "),
        (f'a "fox",2\n"a dog,3\n{MANY}a cat,"4"\n', "3-5004", "3 is closed on line 5004", "not a row: "),
        # Closed so that a row has as many cells as it should, fewer, more.
        ('a,"1\nb,2\nc,"\n', "2-4", "2 is closed on line 4", "width = "),
        ('"a\nb","1\n\nc,2"\nd,3', "2-5", "3 is closed on line 5", "width = "),
        (
            '"a fox,2\nx,y\nb,3,"\nc,4\n',
            "2-4",
            "2 is closed on line 4",
            "has 1 cells, and the header 2: put ",
        ),
        ('a,1\n"a\nb",2,"c\nd",e\nf,3\n', "3-5", "4 is closed on line 5", "has 4 cells, "),
        # Too long, over many lines and on one; the rest of the cell is no row.
        ('"' + f"{LONG[:50_000]}\n" * 9, "2-4", "2 is still open on line 4", "not a row: field larger than"),
        (f'"{LONG}\n"a",1\nb,2\n', "2", "2 is still open on line 2", "not a row: field larger than"),
        # A second quote behind the mistake.
        ('"a"b,"c\nd,1",2\ne,3\n', "2", "2 is still open on line 2", "not a row: "),
        (
            '"a\nb\xfc",1\n',
            "2-3",
            "2 is closed on line 3",
            "is not UTF-8 (byte 0xfc): save the file as UTF-8",
        ),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_wrong_row_of_several_lines_stops_its_file_even_where_wrong_rows_are_skipped(
    tmp_path: Path, rows: str, place: str, quote: str, what: str, newline: str
) -> None:
    file = tmp_path / "p.csv"
    with pytest.raises(ManifestError) as caught:
        _given(file, f"prompt,width\n{rows}".replace("\n", newline).encode("latin-1"))
    message = str(caught.value)
    assert message.startswith(f"{file}:{place}: a quote opened on line {quote}{TORN}{what}")
    assert message.isprintable()
    assert len(message) < 500


def test_a_wrong_row_of_one_line_costs_itself_alone(tmp_path: Path) -> None:
    rows = f'a,8\n"b"b,8\nc,8,8\n{LONG},8\n"{LONG}",8\n"d\ne",8\n"f ""g""",9\nh,8\n'
    prompts, found = _given(tmp_path / "p.csv", f"prompt,width\n{rows}")
    assert prompts == ["a", "d\ne", "h"]
    assert [re.split("[:=] ", row)[:2] for row in found] == [
        ["3", "not a row"],
        ["4", "has 3 cells, and the header 2"],
        ["5", "not a row"],
        ["6", "not a row"],
        ["9", "width "],
    ]
    assert found[0].endswith(
        'each quote in it twice (""), and a cell of more than 131072 characters in .jsonl'
    )


def test_a_wrong_value_in_a_row_of_several_lines_is_that_rows_mistake(tmp_path: Path) -> None:
    rows = 'prompt,width,seeds\n"a\r\n""b""\nc",9,\n"d\ne",8,"1,\n2"\n'
    prompts, found = _given(tmp_path / "p.csv", rows)
    assert prompts == ["d\ne"]
    assert found == ["2: width = 9: must be a multiple of 8 (8 or 16) (the row ends on line 4)"]


def test_a_header_of_several_lines_is_one_where_its_names_are_right(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    header = '"the\nprompt",width'
    assert _given(file, f"{header}\na,8\n", fields={"prompt": "the\nprompt"}) == (["a"], [])
    for rows, error in [
        (f"{header}\na,8\n", ":1-2: a quote opened on line 1 is closed on line 2"),
        (f'prompt,"width\n{MANY}', ":1-5001: a quote opened on line 1 is still open on line 5001"),
        (f'prompt,"width\n{MANY}"\n', ":1-5002: a quote opened on line 1 is closed on line 5002"),
    ]:
        with pytest.raises(ManifestError) as caught:
            _given(file, rows, ignore_others=False)
        assert str(caught.value).startswith(f"{file}{error}{TORN}")
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@settings(max_examples=500, deadline=None)
@given(rows=st.text(st.sampled_from('"",,\t\n\n\rab'), max_size=40))
def test_no_line_is_lost_whatever_the_quotes(
    rows: str, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / f"torn{suffix}"
    separator = "," if suffix == ".csv" else "\t"
    text = f"a{separator}b\n{rows}"
    file.write_bytes(text.encode())
    starts = _lines_that_begin_a_row(text, separator)
    try:
        found = list(records(file, lambda names: None))
    except ManifestError as error:
        assert "a quote opened on line" in str(error)
        return
    assert [number for number, _ in found] == starts[1:]


def _lines_that_begin_a_row(text: str, separator: str) -> list[int]:
    """By the letter: a quote opens a cell at its beginning, and a quote that is not doubled closes it."""
    starts, at_start, quoted = [], True, False
    for number, line in enumerate(re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text), 1):
        if not quoted and line.strip("\r\n"):
            starts.append(number)
        at_start, skip = not quoted, False
        for one, after in zip(line, f"{line[1:]} ", strict=True):
            if skip:
                skip = False
            elif quoted and one == '"':
                skip = after == '"'
                quoted = skip
            elif not quoted:
                quoted = at_start and one == '"'
                at_start = one == separator
    return starts
