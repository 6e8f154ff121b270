"""The pictures of a folder, in the order that people expect."""

from __future__ import annotations

from pathlib import Path

from producer.importing.pictures import pictures_in


def test_numbers_in_names_are_ordered_as_numbers_and_other_digits_as_letters(tmp_path: Path) -> None:
    names = ["1²2.png", "2.png", "10.png", "²3.png"]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [file.name for file in pictures_in([tmp_path])] == names
