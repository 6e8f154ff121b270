"""What people read of a submission."""

from __future__ import annotations

import pytest

from producer.submit.report import print_submitted
from producer.submit.submit import Submitted


def test_a_submission_is_shown_with_what_is_held_doubled_and_attached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_submitted(Submitted("cats-1", False, 5, 0, 0, "/data/cats", ""))
    told = ("width from columns of prompt files",)
    print_submitted(Submitted("cats-3", False, 5, 0, 0, "/data/cats", "", told=told))
    print_submitted(Submitted("cats-2", True, 5, 2, 1, "/data/cats", "its pictures are noise"))
    assert capsys.readouterr().out.splitlines() == [
        "cats-1: 5 images to render",
        "cats-3: 5 images to render",
        "cats-3: width from columns of prompt files",
        "cats-2: 5 images to render, 2 are already in the output, "
        "1 line asking for an image that another line also asks for, it was submitted before and continues",
        "cats-2: its pictures are noise",
    ]


def test_lines_that_share_pictures_and_ids_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_submitted(
        Submitted(
            "cats-1", False, 4960, 5, 0, "/data/cats", "", equal_lines=35, added_lines=1, reused_ids=2,
            first_reused_ids=("7",),
        )
    )  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "cats-1: 4,960 images to render, 5 are already in the output",
        "cats-1: 5,000 lines, 4,965 pictures: 35 lines share a picture with an equal one",
        "cats-1: 1 line of pictures that are there with another id or other columns: added without a "
        "rendering, next to the lines that are there",
        "cats-1: 2 lines have the id of another prompt: 7",
    ]


def test_what_looks_like_syntax_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_submitted(
        Submitted("cats-1", False, 5, 0, 0, "/data/cats", "", syntax=("1 prompt with BREAK", "2 more"))
    )
    assert capsys.readouterr().out.splitlines()[1:] == ["cats-1: 1 prompt with BREAK", "cats-1: 2 more"]
