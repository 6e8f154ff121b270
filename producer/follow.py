"""Watching a job until it ends, or until every living worker refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from jobs.errors import JobError, LedgerFull, LedgerUnavailable
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from producer.reporter import QUIET, Reporter

INTERVAL = 0.25
"""Seconds between two looks at the ledger."""
STALLED = 60.0
"""Seconds without a new shard after which the submission of an open job seems to have stopped."""


def follow_job(
    ledger: Ledger,
    job_id: str,
    reporter: Reporter = QUIET,
    *,
    check: Callable[[], None] | None = None,
    own_worker: bool = False,
) -> Iterator[JobStatus]:
    """Yields the job's status a few times a second; the last one is of the finished job.

    An outage of Redis is waited out. `reporter` gets a line when an outage begins and when it ends, one when
    no worker is alive, unless the caller has started one (`own_worker`), and one when the job's submission
    seems to have stopped: a Redis that was killed may have lost its end; and one when keys of the job are
    lost or damaged. `check` is called before each look
    and may raise. Raises JobError when the job is gone, or when every living worker refuses it.
    """
    away = alone = stalled = False
    trouble = ""
    shards, moved = -1, time.monotonic()
    while True:
        if check is not None:
            check()
        try:
            status = ledger.status(job_id)
            workers = None
            if status.state != "finished":
                with suppress(LedgerFull):  # then nothing is reaped, and the status is still shown
                    ledger.reap()
                if status.refusals or not (own_worker or alone or status.workers or status.paused):
                    workers = ledger.workers()
        except LedgerUnavailable as error:
            if not away:
                reporter.line(f"{job_id}: {error}; waiting until it is back")
            away, moved = True, time.monotonic()
            time.sleep(INTERVAL)
            continue
        if away:
            reporter.line(f"{job_id}: Redis is back")
            away = False
        if workers is not None:
            _check_refusals(status, workers)
            if not (workers or alone or own_worker):
                reporter.line(f"{job_id} waits: no worker is alive: start one with `imagemill-worker`")
                alone = True
        if status.trouble not in (trouble, ""):
            reporter.line(f"{job_id}: {status.trouble}")
        trouble = status.trouble
        if status.shards != shards:
            shards, moved = status.shards, time.monotonic()
        elif status.state == "open" and not (stalled or status.ending) and time.monotonic() - moved > STALLED:
            reporter.line(
                f"{job_id} is not wholly submitted, and its submission has stopped: run the same "
                "`imagemill submit` again"
            )
            stalled = True
        yield status
        if status.state == "finished":
            return
        time.sleep(INTERVAL)


def _check_refusals(status: JobStatus, workers: Collection[str]) -> None:
    if workers and set(workers) <= set(status.refusals):
        reasons = sorted({status.refusals[name] for name in workers})
        raise JobError(
            f"{status.job_id}: no worker takes it: {'; '.join(reasons)}\nFix that, then "
            f"`imagemill resume {status.job_id}` (or cancel it); nothing that was rendered is lost"
        )


def exit_code(status: JobStatus) -> int:
    """0 when every image is there, 1 when some failed or the job was ended early."""
    return 0 if status.outcome == "complete" else 1
