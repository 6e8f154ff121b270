"""A job's progress as lines, and as a bar."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import rich

from jobs.ledger.job import JobStatus
from producer import progress, show
from producer.progress import counting, show_progress

At = Callable[..., JobStatus]


@pytest.fixture
def at(job_status: Callable[..., JobStatus]) -> At:
    """A job of 10 images, `done` of them rendered."""
    fresh = {"total": 10, "failed": 0, "images_per_second": 0.0, "notices": {}}
    return lambda done, **changes: job_status(**fresh | {"done": done, "left": 10 - done} | changes)


class Clock:
    """In time's place; the test moves it on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_a_line_at_once_then_every_few_seconds_and_always_the_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: At
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)

    def statuses() -> Any:
        for second in range(13):
            yield at(min(second, 8))
            clock.now += 1
        yield at(10, state="finished", outcome="complete")

    last = show_progress(statuses())
    assert last.state == "finished"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[1] for line in lines] == [
        "0/10 images",
        "5/10 images",
        "8/10 images",
        "10/10 images",
    ]
    assert lines[-1].startswith("cats-1: finished, 10/10 images")


def test_a_line_that_would_say_the_same_is_not_said_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: At
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)

    def statuses() -> Any:
        for _ in range(4):
            yield at(0)
            clock.now += 60

    assert show_progress(statuses()) == at(0)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_a_bar_with_rate_failures_and_what_is_waited_for_as_it_is_written(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: At
) -> None:
    rich.get_console()  # a console that another part of the process made keeps the width of then
    monkeypatch.setattr(show, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    notice = {"w1": "no space left at /data/[red]cats[/b], which is on the disk that all of the jobs share"}
    end = at(7, failed=3, images_per_second=3.5, notices=notice, loading={"w2": "loads shapes"})
    assert show_progress(iter([at(0), end])) == end
    out = capsys.readouterr().out
    assert "cats-1 running" in out
    assert "10/10" in out
    assert "3.5 images/s, 1s left, 3 failed" in out
    words = " ".join(out.split())
    assert f"w1 waits: {notice['w1']} w2: loads shapes" in words


def test_without_a_terminal_counts_are_dropped_and_lines_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with counting("images read", 10) as reporter:
        reporter.count(7)
        reporter.line("Redis is full")
    assert capsys.readouterr() == ("", "Redis is full\n")


def test_a_terminal_gets_the_counts_as_a_bar_and_the_lines_above_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with counting("shards [examined]") as reporter:
        reporter.line("Redis is full")
        reporter.count(1_234, 5_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Redis is full" in err
    assert "1,234 shards [examined]" in err
