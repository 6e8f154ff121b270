"""What the tests begin with is there, and named once."""

from __future__ import annotations

from pathlib import Path

from tests.first_files import FIRST


def test_each_file_and_folder_that_the_tests_begin_with_is_there_and_named_once() -> None:
    assert [name for name in FIRST if not (Path(__file__).parent / name).exists()] == []
    assert len(set(FIRST)) == len(FIRST)
