"""Text comes as it was saved, or a line says which encoding it looks like and what to write."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from jobs.errors import ManifestError
from producer.manifest.prompt_source import PromptSource
from producer.manifest.text_lines import text_lines

LINES = ["a café by the sea", "Über den Bäumen", "", "last"]
TEXT = "\n".join(LINES)


def _lines(file: Path, contents: bytes, encoding: str | None = None) -> list[str]:
    file.write_bytes(contents)
    found = []
    for _, line in text_lines(file, PromptSource(file="p.txt", encoding=encoding)):
        if isinstance(line, ManifestError):
            raise line
        found.append(line)
    return found


def _trouble(file: Path, contents: bytes, encoding: str | None = None) -> str:
    with pytest.raises(ManifestError) as caught:
        _lines(file, contents, encoding)
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-8-sig", "utf-8"),
        ("utf-16", None),
        ("utf-16", "utf-16"),
        ("utf-32", None),
        ("utf-16-le", "utf-16"),
        ("utf-16-be", "UTF-16BE"),
        ("cp1252", "cp1252"),
        ("latin-1", "iso-8859-1"),
        ("utf-7", "utf-7"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_in_any_encoding_that_is_marked_or_named_is_read(
    tmp_path: Path, saved: str, named: str | None, newline: str
) -> None:
    assert _lines(tmp_path / "p.txt", TEXT.replace("\n", newline).encode(saved), named) == LINES


def test_marked_text_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    for named in (None, "utf-16"):
        assert _lines(tmp_path / "p.txt", b"\xfe\xff" + TEXT.encode("utf-16-be"), named) == LINES


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told(tmp_path: Path, name: str) -> None:
    assert _trouble(tmp_path / "p.txt", TEXT.encode(name)) == (
        f"looks like {name.upper()}, and is read as UTF-8: add `encoding: {name}`, "
        f"as in prompts_from: {{file: p.txt, encoding: {name}}}"
    )


def test_a_nul_is_no_utf_16(tmp_path: Path) -> None:
    for text in ("a\0b", "a\0b\n", "ab\0", "\0\0"):
        assert _lines(tmp_path / "p.txt", text.encode()) == [text.removesuffix("\n")]


def test_a_line_that_is_not_utf_8_offers_the_encoding_it_may_have(tmp_path: Path) -> None:
    assert _trouble(tmp_path / "p.txt", TEXT.encode("cp1252")) == (
        "is not UTF-8 (byte 0xe9): save the file as UTF-8, or name its encoding; for Western Europe's of "
        "Windows add `encoding: cp1252`, as in prompts_from: {file: p.txt, encoding: cp1252}"
    )


@pytest.mark.parametrize(
    ("saved", "named", "what"),
    [
        ("utf-8", "cp1252", "is UTF-8, and not cp1252: remove `encoding`"),
        ("utf-8", "utf-16", "is UTF-8, and not utf-16: remove `encoding`"),
        ("utf-16", "cp1252", "is UTF-16, and not cp1252: write `encoding: utf-16`"),
        ("utf-16", "utf-8", "is UTF-16, and not utf-8: write `encoding: utf-16`"),
        ("cp1252", "ascii", "is not ascii (byte 0xe9): correct `encoding`, or save the file as UTF-8"),
        (
            "cp1252",
            "shift_jis",
            "is not shift_jis (byte 0xe9): correct `encoding`, or save the file as UTF-8",
        ),
    ],
)
def test_text_in_another_encoding_than_is_named_is_refused(
    tmp_path: Path, saved: str, named: str, what: str
) -> None:
    assert _trouble(tmp_path / "p.txt", TEXT.encode(saved), named) == what


def test_a_piece_that_cannot_be_decoded_costs_its_own_line(tmp_path: Path) -> None:
    for contents, encoding in [
        (b"a\n\x81\nb\n", "cp1252"),
        ("a\n\U0001f98a\nb\n".encode("utf-16-le"), "utf-16-le"),
    ]:
        broken = contents.replace(b"\x3e\xd8", b"\x20\xd8").replace(b"\x8a\xdd", b"\x41\x00")
        (tmp_path / "p.txt").write_bytes(broken)
        found = list(text_lines(tmp_path / "p.txt", PromptSource(file="p.txt", encoding=encoding)))
        assert [line for _, line in found if isinstance(line, str)] == ["a", "b"]
        assert isinstance(found[1][1], ManifestError)


def test_packed_text_is_read_and_a_line_beyond_all_bounds_is_not_held(tmp_path: Path) -> None:
    bomb = b"x" * (40 << 20)
    for suffix, pack in [("gz", gzip.compress), ("zst", zstandard.compress)]:
        assert _lines(tmp_path / f"p.txt.{suffix}", pack(TEXT.encode())) == LINES
        packed = pack(b"a\n" + bomb)
        assert len(packed) < 50_000
        assert f"p.txt.{suffix}:2: the line is longer than 16 MiB" in _trouble(
            tmp_path / f"p.txt.{suffix}", packed
        )
