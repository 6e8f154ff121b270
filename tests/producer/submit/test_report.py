"""What people read of a submission."""

from __future__ import annotations

import pytest

from producer.submit.report import print_submitted
from producer.submit.submit import Submitted


def test_a_submission_is_shown_with_what_is_held_doubled_and_attached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_submitted(Submitted("cats-1", False, 5, 0, 0, "/data/cats", ""))
    print_submitted(Submitted("cats-2", True, 5, 2, 1, "/data/cats", "its pictures are noise"))
    assert capsys.readouterr().out.splitlines() == [
        "cats-1: 5 images to render",
        "cats-2: 5 images to render, 2 are already in the output, "
        "1 line asking for an image that another line also asks for, it was submitted before and continues",
        "cats-2: its pictures are noise",
    ]
