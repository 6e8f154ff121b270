"""Watching a job until it ends, or until every living worker refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from jobs.errors import JobError, LedgerFull, LedgerUnavailable
from jobs.ledger.eviction import redis_memory
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from producer.reporter import QUIET, Reporter
from producer.why_waiting import Kind, Wait, why_it_waits

INTERVAL = 0.25
"""Seconds between two looks at the ledger."""
STALLED = 60.0
"""Seconds without a new shard after which the submission of an open job seems to have stopped."""

PASSING = 2.0
"""Seconds that a job is behind others, or without its worker, before that is told."""
_PASSING = ("behind", "lost")
_SEEN_OTHERWISE = ("paused", "refused", "loading", "disk")
"""What the line of progress says, or ends the following."""


def follow_job(
    ledger: Ledger,
    job_id: str,
    reporter: Reporter = QUIET,
    *,
    check: Callable[[], None] | None = None,
    own_worker: bool = False,
) -> Iterator[JobStatus]:
    """Yields the job's status a few times a second; the last one is of the finished job.

    An outage of Redis is waited out. `reporter` gets a line when an outage begins and when it ends, one for
    each kind of thing that the job waits for, at its first time (but not that no worker is alive if the
    caller has started one: `own_worker`), one when the job's submission seems to have stopped: a Redis that
    was killed may have lost its end; and one when keys of the job are lost or damaged. `check` is called
    before each look and may raise. Raises JobError when the job is gone, or when every living worker
    refuses it.
    """
    away = stalled = False
    trouble = ""
    waits = _Waits(job_id, reporter, {"no worker"} if own_worker else set())
    shards, moved = -1, time.monotonic()
    while True:
        if check is not None:
            check()
        try:
            status = ledger.status(job_id)
            workers, full = None, False
            if status.state != "finished":
                with suppress(LedgerFull):  # then nothing is reaped, and the status is still shown
                    ledger.reap()
                if status.refusals or status.notices or not (status.workers or status.paused):
                    workers = ledger.workers()
                    full = not status.workers and redis_memory(ledger.client).full
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
            waits.tell(why_it_waits(status, workers, full=full))
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


class _Waits:
    """Tells what a job waits for: once for each kind of reason, and not what passes at once."""

    def __init__(self, job_id: str, reporter: Reporter, told: set[Kind]) -> None:
        """`told`: the kinds that are not told."""
        self._job_id, self._reporter, self._told = job_id, reporter, told
        self._since: tuple[Kind, float] | None = None

    def tell(self, wait: Wait | None) -> None:
        """Takes what the job waits for at this look."""
        if wait is None or wait.kind in _SEEN_OTHERWISE:
            self._since = None
            return
        now = time.monotonic()
        if self._since is None or self._since[0] != wait.kind:
            self._since = (wait.kind, now)
        if wait.kind not in self._told and (wait.kind not in _PASSING or now - self._since[1] > PASSING):
            self._reporter.line(f"{self._job_id} waits: {wait.text}")
            self._told.add(wait.kind)


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
