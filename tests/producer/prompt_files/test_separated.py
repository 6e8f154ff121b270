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
from producer.manifest.prompt_source import PromptSource
from producer.prompt_files.reading import Reading
from producer.prompt_files.separated import records
from producer.prompt_files.sources import lines

TORN = ": close it where its cell ends, or fix the row: "
MANY = "".join(f"a fox,{n}\n" for n in range(5000))
LONG = "x" * (csv.field_size_limit() + 1)


def _given(file: Path, contents: str | bytes, **source: Any) -> tuple[list[str], list[str]]:
    """The prompts and what is said of the rows that are skipped."""
    file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    found = {"file": str(file), "ignore_others": True, "quoting": "minimal"} | source
    on_bad_row = found.pop("on_bad_row", "skip")
    manifest = {"name": "cats", "model": "instant", "prompts_from": [found], "on_bad_row": on_bad_row}
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


PUBLISHED = (
    'Prompt\tKind\na lantern\tx\na mug with the word "TEA" on it\tx\n'
    '"H E L L O" in chalk\ty\n"OPEN"\ty\n5" of snow\tz\n"a boat\tz\n'
)
"""A table whose author never thought of quotes as anything but characters."""
TEXTS = [
    "a lantern",
    'a mug with the word "TEA" on it',
    '"H E L L O" in chalk',
    '"OPEN"',
    '5" of snow',
    '"a boat',
]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_where_quotes_are_characters_every_row_is_read_with_them(
    tmp_path: Path, separator: str, newline: str
) -> None:
    contents = PUBLISHED.replace("\t", separator).replace("\n", newline)
    keys = {"fields": {"prompt": "Prompt"}, "columns": ["Kind"]}
    found = _given(tmp_path / "p.csv", contents, quoting="none", separator=separator, **keys)
    assert found == (TEXTS, [])
    assert (
        _given(tmp_path / "p.csv", contents + "a\n", quoting="none", separator=separator, **keys)[0] == TEXTS
    )


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        (PUBLISHED, "4"),
        ('Prompt\tKind\na\tx\n"a" b\ty\n', "3"),
        ('Prompt\tKind\n"a\tx\nb\ty\n', "2-3"),
        ('Prompt\tKind\nc\tx\n"a\tb"\n', "3"),
        ('Prompt\tKind\n"a\tx\nb"c\ty\n', "2-3"),
    ],
)
@pytest.mark.parametrize("on_bad_row", ["stop", "skip"])
def test_a_row_that_is_right_where_quotes_are_characters_is_never_skipped(
    tmp_path: Path, rows: str, place: str, on_bad_row: str
) -> None:
    file = tmp_path / "p.tsv"
    with pytest.raises(ManifestError) as caught:
        _given(file, rows, quoting=None, fields={"prompt": "Prompt"}, on_bad_row=on_bad_row)
    assert str(caught.value).startswith(f"{file}:{place}: ")
    offer = (
        "if quotes belong to the texts, add `quoting: none`, as in prompts_from: "
        f"{{file: {file}, fields: {{prompt: Prompt}}, ignore_others: true, quoting: none}}"
    )
    assert offer in str(caught.value)
    assert _given(file, rows, quoting="none", fields={"prompt": "Prompt"})[1] == []


def test_lines_that_are_a_row_each_or_one_together_are_asked_about(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    rows = 'prompt,id\nx,0\n"a,1\nb",2\n'
    with pytest.raises(ManifestError) as caught:
        _given(file, rows, quoting=None)
    assert str(caught.value) == (
        f"{file}:3-4: is one row if quotes enclose cells, and 2 rows if quotes belong to the texts: for one "
        f"row add `quoting: minimal`, as in prompts_from: {{file: {file}, ignore_others: true, "
        "quoting: minimal}; for several, quoting: none"
    )
    assert _given(file, rows, quoting="minimal") == (["x", "a,1\nb"], [])
    assert _given(file, rows, quoting="none") == (["x", '"a', 'b"'], [])
    for right in ('prompt,id\n"two\nlines",1\n', 'prompt\n"two\nlines"\n', 'prompt,id\n"a ""b""",1\n'):
        assert len(_given(file, right, quoting=None)[0]) == 1


@pytest.mark.parametrize(
    ("name", "contents", "said", "key"),
    [
        ("p.csv", "prompt;seed\na fox, red;1\n", "semicolon, and not by a comma", "';'"),
        ("p.csv", "prompt\tseed\na fox, red\t1\n", "tab, and not by a comma", "'\\t'"),
        ("p.tsv", "prompt,seed\na,1\n", "comma, and not by a tab", "','"),
        ("p.tsv", "prompt|seed|id\na|1|x\n", "bar, and not by a tab", "'|'"),
    ],
)
def test_the_character_that_seems_to_separate_is_named(
    tmp_path: Path, name: str, contents: str, said: str, key: str
) -> None:
    for ignored in (True, False):
        with pytest.raises(ManifestError) as caught:
            _given(tmp_path / name, contents, ignore_others=ignored)
        quoted = key.replace("'", '"')
        others = "ignore_others: true, " if ignored else ""
        assert str(caught.value) == (
            f"{tmp_path / name}:1: the columns look separated by a {said}: add `separator: {quoted}`, as in "
            f"prompts_from: {{file: {tmp_path / name}, {others}quoting: minimal, separator: {quoted}}}"
        )
    separator = key.strip("'").replace("\\t", "\t")
    assert len(_given(tmp_path / name, contents, separator=separator)[0]) == 1


def test_commas_in_the_only_column_offer_another_separator(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    prompts, (found,) = _given(file, "prompt\na fox\na fox, red\n")
    assert prompts == ["a fox"]
    assert found.endswith(
        'since there is one column, add `separator: "\\t"`, '
        f'as in prompts_from: {{file: {file}, ignore_others: true, quoting: minimal, separator: "\\t"}}'
    )
    assert _given(file, "prompt\na fox\na fox, red\n", separator="\t")[0] == ["a fox", "a fox, red"]


def test_a_header_after_blank_lines_and_one_in_another_encoding_are_read(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    assert _given(file, "\n\nprompt,id\na,1\n") == (["a"], [])
    contents = "prompt,größe\nein Bär,1\n"
    assert _given(file, contents.encode("cp1252"), encoding="cp1252") == (["ein Bär"], [])
    with pytest.raises(ManifestError, match=r"p\.csv:1: is not UTF-8 \(byte 0xf6\)"):
        _given(file, contents.encode("cp1252"))


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
        found = list(records(file, PromptSource(file=str(file), quoting="minimal"), lambda names: None))
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
