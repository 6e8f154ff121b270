"""A command's hold on an output in a bucket, which one ledger's jobs write: `jobs.output.writer`."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from jobs.errors import ImagemillError, JobError, JobUnreadable
from jobs.ledger.job import Controlled
from jobs.ledger.ledger import Ledger
from jobs.location import names_bucket
from jobs.output.output import Output
from jobs.output.writer import LEASES, OutputWriter, Writer
from producer.job_queue import JobQueue
from producer.reporter import QUIET, Reporter


class _Unfinished(NamedTuple):
    """The ledger's job that an output belongs to; none without an id."""

    job_id: str = ""
    incarnation: str = ""
    has_shards: bool = False
    """Whether it was chosen already what it asks for."""


class Writing:
    """What a command does with the output that it holds; nothing where it is a folder."""

    def __init__(self, writer: OutputWriter | None = None) -> None:
        self._writer, self.kept = writer, False

    def bind(self, job_id: str, incarnation: str) -> None:
        """Leaves the output to a job. Raises JobError where another ledger has taken it over."""
        if self._writer is not None:
            self._writer.bind(job_id, incarnation)
        self.kept = True

    def keep(self) -> None:
        """Leaves the output to a job of this ledger."""
        self.kept = True


@contextmanager
def writing(
    output: Output, queue: JobQueue | None, name: str, reporter: Reporter = QUIET
) -> Iterator[Writing]:
    """Holds an output while the block writes there, and lets it go unless a job has got it.

    `queue`: the jobs that write are its own; None where there is no Redis. `name`: what others are told of
    it. Looks at another ledger's writer for up to its lease, and `reporter` says so. Raises JobError where
    that is at work, or has written since an unfinished job of this ledger was begun; OutputError,
    LedgerError, OSError.
    """
    if not output.in_bucket:
        yield Writing()
        return
    output.prepare()
    if queue is None:
        own, job = secrets.token_hex(8), _Unfinished()
        me, word = Writer(job=name), lambda: own
    else:
        job, word = _unfinished(queue.ledger, output.label), queue.ledger.word
        me = Writer(job=job.job_id or name, incarnation=job.incarnation, lease=LEASES * queue.lease)
        me = replace(me, lock=queue.lock)
    writer = OutputWriter(output, me, word)
    writer.take(reporter.line, begun=job.job_id if job.has_shards else "")
    held, ended = Writing(writer), threading.Event()
    held.kept = job.job_id != ""
    renewing = threading.Thread(target=_renew, args=(writer, me.lease, ended), name="writer", daemon=True)
    renewing.start()
    try:
        yield held
    finally:
        ended.set()
        if not held.kept:
            with suppress(ImagemillError, OSError):
                writer.free(writer.is_as_left)


@contextmanager
def freed_at_the_end(output: Output, queue: JobQueue) -> Iterator[None]:
    """Marks an output free after the block, whose Redis and workers end with it."""
    if not output.in_bucket:
        yield
        return
    word = queue.ledger.word()
    try:
        yield
    finally:
        with suppress(ImagemillError, OSError):
            OutputWriter(output, Writer(), lambda: word).free(lambda writer: writer.ledger == word)


def cancel_job(
    ledger: Ledger, job_id: str, reason: str = "", told: Callable[[Controlled], None] = lambda _came_to: None
) -> None:
    """Cancels a job (`Steering.control`), and marks its output free where no worker will.

    `told` gets what it came to before the store is asked, which may give no answer: then nothing is marked,
    and another ledger looks at the output for its lease.
    """
    # Of a job that cannot be read nothing is left afterwards.
    output, incarnation = ledger.written(job_id)
    came_to = ledger.control(job_id, "cancel", reason)
    told(came_to)
    if came_to != "ok" and names_bucket(output) and incarnation:
        with suppress(ImagemillError, OSError):
            OutputWriter(Output.at(output), Writer(incarnation=incarnation), ledger.word).free()


def _renew(writer: OutputWriter, lease: float, ended: threading.Event) -> None:
    while not ended.wait(lease / LEASES):
        # What it finds is told by the next write that is on a condition.
        with suppress(ImagemillError, OSError):
            writer.renew()


def _unfinished(ledger: Ledger, output: str) -> _Unfinished:
    job_id = ledger.writer(output)
    if job_id is None:
        return _Unfinished()
    try:
        found, ending = ledger.submission(job_id), ledger.status(job_id).ending
    except (JobError, JobUnreadable):
        return _Unfinished(job_id, "", True)
    # One that is ending renders nothing more, and its submission is refused by the ledger.
    return _Unfinished(job_id, found.incarnation, found.shards > 0 and not ending)
