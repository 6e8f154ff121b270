"""Texts on pages of pictures: broken between words, and never a character that the font lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ImageFont

from jobs.lettering import drawable, line_height, load_font, wrapped


def test_a_text_is_broken_between_words_and_a_word_that_is_too_long_within() -> None:
    font = load_font(16)
    lines = wrapped("a red fox in the snow " + "x" * 60, 20, 90, font)
    assert " ".join(lines[:2]).startswith("a red fox in")
    assert all(font.getlength(line) <= 90 for line in lines)
    assert "".join(lines).replace(" ", "") == ("a red fox in the snow " + "x" * 60).replace(" ", "")


def test_more_lines_than_there_is_room_for_end_with_dots() -> None:
    lines = wrapped("a red fox in the snow", 2, 60, load_font(16))
    assert len(lines) == 2
    assert lines[-1].endswith("…")


def test_what_the_font_lacks_is_drawn_without_accents_or_as_a_question_mark() -> None:
    assert drawable("naïve  狐\n— ok · …", load_font(16)) == "naive ? ? ok · …"


def test_a_font_of_the_users_is_read_from_its_file(tmp_path: Path) -> None:
    own = load_font(20)
    file = tmp_path / "own.ttf"
    file.write_bytes(own.font_bytes)
    again = load_font(20, file)
    assert isinstance(again, ImageFont.FreeTypeFont)
    assert again.getlength("a red fox") == own.getlength("a red fox")
    assert line_height(again) == line_height(own)
    file.write_bytes(b"no font")
    with pytest.raises(OSError, match="file format"):
        load_font(20, file)
