"""What jobs wait for and what workers do, as lines for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.ledger.job import JobStatus, UnreadableJob
from producer.show import say
from producer.why_waiting import Facts, in_words, twins, why_it_waits

_MOST = 20
"""Workers that are described, a line each."""
_NAMED = 5
"""Jobs that are named where many wait for the same."""


def waits_as_json(
    job: JobStatus | UnreadableJob, workers: Mapping[str, Facts], full: bool
) -> dict[str, Any] | None:
    """Why the job waits, `{"kind": …, "text": …}`; None where it does not, or cannot be read."""
    wait = None if isinstance(job, UnreadableJob) else why_it_waits(job, workers, full=full)
    return None if wait is None else {"kind": wait.kind, "text": wait.text}


def print_waits(jobs: Sequence[JobStatus | UnreadableJob], workers: Mapping[str, Facts], full: bool) -> None:
    """Prints what workers take and do, a line each, and why jobs wait, those that wait for the same
    together."""
    described = [line for name, facts in workers.items() if (line := in_words(name, facts))]
    for line in described[:_MOST]:
        say(f"  {line}")
    if len(described) > _MOST:
        say(f"  and {len(described) - _MOST} more: --json has them all")
    alike: dict[str, list[str]] = {}
    for job in jobs:
        wait = None if isinstance(job, UnreadableJob) else why_it_waits(job, workers, full=full)
        if wait is not None and wait.kind != "paused":  # the table says so
            alike.setdefault(wait.text, []).append(job.job_id)
    for text, names in alike.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        say(f"{', '.join(names[:_NAMED])}{more} {'waits' if len(names) == 1 else 'wait'}: {text}")
    _print_twins(workers)


def print_wait(job: JobStatus, workers: Mapping[str, Facts], full: bool) -> None:
    """Prints why one job waits, if it does."""
    wait = why_it_waits(job, workers, full=full)
    if wait is not None:
        say(f"  waits     {wait.text}")
    _print_twins(workers)


def _print_twins(workers: Mapping[str, Facts]) -> None:
    for line in twins(workers):
        say(f"warning: {line}")
