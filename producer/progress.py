"""Live progress: a bar for a person; of a job, a line every few seconds where no terminal is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from jobs.ledger.job import JobStatus
from producer import show

_EVERY = 5.0
"""Seconds between two plain lines."""


def show_progress(statuses: Iterable[JobStatus]) -> JobStatus:
    """Shows each status as it comes; returns the last."""
    return _bar(statuses) if show.is_terminal() else _lines(statuses)


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Shows on standard error, while a person looks there, how many of `what` ("images read") there are.

    Yields a function of that number and, where it was not known before, of the total.
    """
    if not sys.stderr.isatty():
        yield lambda done, total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.completed:,.0f} {task.description}", markup=False), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)


def _lines(statuses: Iterable[JobStatus]) -> JobStatus:
    said, printed = "", 0.0
    for status in statuses:
        last = status
        line = show.progress_line(status)
        if line != said and time.monotonic() - printed >= _EVERY:
            click.echo(line)
            said, printed = line, time.monotonic()
    if show.progress_line(last) != said:
        click.echo(show.progress_line(last))
    return last


def _bar(statuses: Iterable[JobStatus]) -> JobStatus:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("", total=None, rate="")
        for status in statuses:
            last = status
            rate = f"{status.images_per_second:.1f} images/s, {show.duration(status.eta_seconds)} left"
            bar.update(
                task,
                description=f"{status.job_id} {show.state(status)}",
                total=status.total,
                completed=status.done + status.failed,
                rate=rate + show.doubts(status) + show.waits(status),
            )
    return last
