"""A lock on a file keeps other holders out, and goes with the last process that holds it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.lock import try_lock


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptors of one file, as two processes would open it."""
    opened = [os.open(tmp_path / "lock", os.O_RDONLY | os.O_CREAT, 0o600) for _ in range(2)]
    yield opened[0], opened[1]
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [(False, False, False), (True, False, False), (False, True, False), (True, True, True)],
)
def test_only_shared_locks_are_held_side_by_side(
    ends: tuple[int, int], first: bool, second: bool, both: bool
) -> None:
    assert try_lock(ends[0], shared=first)
    assert try_lock(ends[1], shared=second) is both


def test_a_lock_lasts_as_long_as_a_process_that_inherited_it(tmp_path: Path, ends: tuple[int, int]) -> None:
    held = os.open(tmp_path / "lock", os.O_RDONLY)
    assert try_lock(held)
    heir = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(held,))
    os.close(held)
    assert not try_lock(ends[0])
    heir.communicate()
    assert try_lock(ends[0])


def test_what_cannot_be_locked_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        try_lock(12345)
