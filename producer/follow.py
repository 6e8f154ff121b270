"""Watching a job until it ends, or until every worker there is refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from jobs.errors import JobError, LedgerUnavailable
from jobs.job import JobStatus
from jobs.ledger import Ledger

INTERVAL = 0.25
"""Seconds between two looks at the ledger."""


def follow(ledger: Ledger, job_id: str, *, check: Callable[[], None] = lambda: None) -> Iterator[JobStatus]:
    """Yields the job's status a few times a second; the last one is of the finished job.

    Goes on through an outage of Redis. `check` may raise to end it. Raises JobError when the job is gone, or
    when every worker there is refuses it.
    """
    while True:
        check()
        try:
            status = ledger.status(job_id)
            if status.state != "finished":
                ledger.reap()
                _check_refusals(ledger, status)
        except LedgerUnavailable:
            time.sleep(INTERVAL)
            continue
        yield status
        if status.state == "finished":
            return
        time.sleep(INTERVAL)


def _check_refusals(ledger: Ledger, status: JobStatus) -> None:
    if not status.refusals:
        return
    workers = set(ledger.workers())
    if workers and workers <= set(status.refusals):
        reasons = sorted({status.refusals[name] for name in workers})
        raise JobError(
            f"{status.job_id}: no worker takes it: {'; '.join(reasons)}\nPut it right, then "
            f"`imagemill resume {status.job_id}` (or cancel it); nothing that was rendered is lost"
        )


def exit_code(status: JobStatus) -> int:
    """0 when every image is there, 1 when some failed or the job was ended early."""
    return 0 if status.outcome == "complete" else 1
