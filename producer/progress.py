"""Live progress: a bar on a terminal; without one, a line about a job every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from jobs.ledger.job import JobStatus
from jobs.wording import on_one_line
from producer import show
from producer.reporter import Reporter, StandardError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY = 5.0
"""Seconds between two plain lines."""


def show_progress(statuses: Iterable[JobStatus]) -> JobStatus:
    """Shows each status as it comes; returns the last."""
    return _job_bar(statuses) if show.is_terminal() else _lines(statuses)


class _Bar(StandardError):
    """Prints lines on standard error, above a bar that shows the counts."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def count(self, done: int, total: int | None = None, /) -> None:
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Reporter]:
    """Shows on a terminal's standard error how many of `what` ("images read") there are.

    Yields the reporter that takes the counts, and prints lines on standard error.
    """
    if not sys.stderr.isatty():
        yield StandardError()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.completed:,.0f} {task.description}", markup=False), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task(what, total=total))


def _lines(statuses: Iterable[JobStatus]) -> JobStatus:
    shown, printed = "", 0.0
    for status in statuses:
        last = status
        line = show.progress_line(status)
        if line != shown and time.monotonic() - printed >= _EVERY:
            click.echo(line)
            shown, printed = line, time.monotonic()
    if show.progress_line(last) != shown:
        click.echo(show.progress_line(last))
    return last


def _job_bar(statuses: Iterable[JobStatus]) -> JobStatus:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
    )
    bar = Progress(*columns)
    task = bar.add_task("", total=None, rate="")
    with Live(bar, console=Console()) as live:
        for status in statuses:
            last = status
            rate = f"{show.rate(status)} images/s, {show.duration(status.eta_seconds)} left"
            bar.update(
                task,
                description=on_one_line(f"{status.job_id} {show.state(status)}"),
                total=status.total,
                completed=status.done + status.failed,
                rate=rate + show.doubts(status),
            )
            # Below the bar, where it wraps: beside the bar a terminal of 80 columns would cut it.
            live.update(Group(bar, *(Text(line) for line in show.waits(status))))
    return last
