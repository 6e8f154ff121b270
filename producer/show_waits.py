"""What jobs wait for and what workers do, as lines for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.wording import printable
from producer.why_waiting import Facts, in_words, twins, why_it_waits

_MOST = 20
"""Workers that are described, a line each."""


def waits_as_json(
    job: JobStatus | UnreadableJob, workers: Mapping[str, Facts], full: bool
) -> dict[str, Any] | None:
    """Why the job waits, `{"kind": …, "text": …}`; None where it does not, or cannot be read."""
    wait = None if isinstance(job, UnreadableJob) else why_it_waits(job, workers, full=full)
    return None if wait is None else asdict(wait)


def print_waits(jobs: Sequence[JobStatus | UnreadableJob], workers: Mapping[str, Facts], full: bool) -> None:
    """Prints what workers take and do, a line each, and why jobs wait."""
    described = [line for name, facts in workers.items() if (line := in_words(name, facts))]
    for line in described[:_MOST]:
        click.echo(printable(f"  {line}"))
    if len(described) > _MOST:
        click.echo(f"  and {len(described) - _MOST} more: --json has them all")
    for job in jobs:
        wait = None if isinstance(job, UnreadableJob) else why_it_waits(job, workers, full=full)
        if wait is not None:
            click.echo(printable(f"{job.job_id} waits: {wait.text}"))
    _print_twins(workers)


def print_wait(job: JobStatus, workers: Mapping[str, Facts], full: bool) -> None:
    """Prints why one job waits, if it does."""
    wait = why_it_waits(job, workers, full=full)
    if wait is not None:
        click.echo(printable(f"  waits     {wait.text}"))
    _print_twins(workers)


def _print_twins(workers: Mapping[str, Facts]) -> None:
    for line in twins(workers):
        click.echo(printable(f"warning: {line}"))
