"""A full disk makes a write wait, says so, and fails nothing."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import LeaseLost
from jobs.output.output import Output
from worker.engine.renderer import Stopped
from worker.lease import disk_space
from worker.lease.disk_space import DiskSpace


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    output.prepare()
    return output


class Looks(threading.Event):
    """A stop event whose every wait runs the next of `events` instead of letting time pass."""

    def __init__(self, *events: Callable[[], object]) -> None:
        super().__init__()
        self.events = list(events)

    def wait(self, timeout: float | None = None) -> bool:
        self.events.pop(0)()
        return self.is_set()


def go_on() -> None:
    """A check that lets the writer wait on."""


def full(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number))


def raising(*errors: OSError) -> Callable[[], str]:
    """A write that meets these one after the other, and then succeeds."""
    left = list(errors)

    def write() -> str:
        if left:
            raise left.pop(0)
        return "written"

    return write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_meets_a_full_disk_is_made_again_until_it_goes_through(
    output: Output, number: int
) -> None:
    notices: list[str] = []
    stop = Looks(*[lambda: notices.append(space.notice)] * 2)
    space = DiskSpace(0, stop)
    assert space.write(output, raising(full(number), full(number)), go_on) == "written"
    assert notices == [f"no space left at {output.path}"] * 2
    assert space.notice == ""


def test_nothing_is_written_below_the_low_watermark(
    output: Output, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = [1 << 29, 1 << 29, 3 << 29]
    monkeypatch.setattr(disk_space, "free_bytes", lambda _output: free.pop(0))
    tried: list[int] = []
    notices: list[str] = []
    space = DiskSpace(1 << 30, Looks(*[lambda: notices.append(space.notice)] * 2))
    space.write(output, lambda: tried.append(len(free)), go_on)
    assert tried == [0]
    assert notices == [f"0.50 GiB free at {output.path}, below IMAGEMILL_MIN_FREE_DISK = 1.00 GiB"] * 2
    assert space.notice == ""
    assert caplog.text.count("paused: 0.50 GiB free") == 1


def test_a_writer_that_is_told_to_stop_leaves_without_writing(output: Output) -> None:
    stop = Looks()
    stop.events.append(stop.set)
    with pytest.raises(Stopped):
        DiskSpace(0, stop).write(output, raising(full(), full()), go_on)


@pytest.mark.parametrize("min_free", [0, 1 << 62], ids=["full", "below the watermark"])
def test_a_writer_whose_picture_nobody_wants_any_more_leaves_without_writing(
    output: Output, min_free: int
) -> None:
    looked: list[int] = []

    def check() -> None:
        looked.append(1)
        if len(looked) == 3:
            raise LeaseLost("another attempt's by now")

    space = DiskSpace(min_free, Looks(*[lambda: None] * 3))
    with pytest.raises(LeaseLost):
        space.write(output, raising(*[full()] * 9), check)


def test_other_troubles_pass(output: Output) -> None:
    space = DiskSpace(0, Looks())
    with pytest.raises(PermissionError):
        space.write(output, raising(PermissionError(errno.EACCES, "no")), go_on)
    assert space.notice == ""


def test_an_output_that_is_gone_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskSpace(0, Looks()).write(Output(tmp_path / "gone"), raising(), go_on)
