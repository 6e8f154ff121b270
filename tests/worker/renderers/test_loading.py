"""What is told about a model that is being loaded."""

from __future__ import annotations

import re

import pytest

from worker.renderers.loading import Loading


@pytest.mark.parametrize(
    ("files", "size", "done", "said"),
    [
        (12, 23_800_000_000, (3, 4_100_000_000), "downloading org/m: 3 of 12 files, 4.1 of 23.8 GB, N s"),
        (12, 23_800_000_000, (0, 0), "downloading org/m: 0 of 12 files, 23.8 GB, N s"),
        (0, 1_900_000, (0, 950_000), "downloading org/m: 0.9 of 1.9 MB, N s"),
        (0, 2_000, (0, 1_000), "downloading org/m: 1.0 of 2.0 kB, N s"),
        (0, 900, (0, 7), "downloading org/m: 7 of 900 bytes, N s"),
        (0, 0, (1, 1), "downloading org/m: N s"),
        # What is resumed or counted twice is never more than all.
        (2, 2_000, (3, 3_000), "downloading org/m: 2 of 2 files, 2.0 of 2.0 kB, N s"),
    ],
)
def test_files_bytes_and_seconds_are_told(files: int, size: int, done: tuple[int, int], said: str) -> None:
    loading = Loading()
    with loading.stage("downloading", "org/m", files=files, size=size):
        loading.advance(files=done[0], size=done[1])
        assert re.sub(r"\d+ s$", "N s", loading.text) == said


def test_nothing_is_told_before_and_after_also_when_it_failed() -> None:
    loading = Loading()
    assert loading.text == ""
    loading.advance(files=1)
    with pytest.raises(ValueError, match="broken"), loading.stage("loading", "org/m"):
        assert loading.text.startswith("loading org/m: ")
        raise ValueError("broken")
    assert loading.text == ""


def test_a_part_within_another_is_told_in_its_place() -> None:
    loading = Loading()
    with loading.stage("preparing", "org/m"):
        with loading.stage("proving", "org/m"):
            assert loading.text.startswith("proving org/m: ")
        assert loading.text.startswith("preparing org/m: ")
