"""An error that is kept keeps no memory of the calls that it ended."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from worker.error_frames import drop_frames

SEEN: list[weakref.ref[np.ndarray]] = []


def big() -> np.ndarray:
    values = np.zeros(8)
    SEEN.append(weakref.ref(values))
    return values


def fail() -> None:
    held = big()
    raise ValueError(f"{len(held)} values")


def fail_again() -> None:
    held = big()
    try:
        fail()
    except ValueError as error:
        raise RuntimeError(f"{len(held)} more") from error


def fail_within() -> None:
    held = big()

    def inner() -> None:
        fail_with(held)

    inner()


def fail_with(held: np.ndarray) -> None:
    raise ValueError(f"{len(held)} values")


def fail_on_the_way_out() -> None:
    held = big()
    try:
        fail()
    finally:
        raise RuntimeError(f"{len(held)} at the end")


@pytest.mark.parametrize(
    ("call", "kept"), [(fail, 1), (fail_within, 1), (fail_again, 2), (fail_on_the_way_out, 2)]
)
def test_all_that_was_computed_is_freed(call: object, kept: int) -> None:
    SEEN.clear()
    mine = big()
    try:
        call()
    except Exception as error:
        assert len(SEEN) > 1
        assert all(one() is not None for one in SEEN)
        drop_frames(error)
        assert [one() is not None for one in SEEN] == [True] + [False] * (len(SEEN) - 1)
    assert mine is SEEN[0](), "the caller's own variables are left alone"


def test_the_lines_are_logged_for_those_who_look_for_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "worker.error_frames")
    try:
        fail_again()
    except RuntimeError as error:
        drop_frames(error)
        assert error.__traceback__ is None
    assert "in fail\n" in caplog.text
    assert "in fail_again\n" in caplog.text
