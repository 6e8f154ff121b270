"""What the ledger says, read at most once a second however many look at the pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.errors import LedgerError
from jobs.ledger.eviction import eviction_trouble, redis_memory
from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.ledger.ledger_view import LedgerView

_Answer = TypeVar("_Answer")
OLDEST = 1.0
"""Seconds that a reading is good for."""


@dataclass(frozen=True, slots=True)
class Away:
    """That the ledger cannot be read now."""

    since: float
    """Unix time, seconds."""
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger as it was read last."""

    jobs: tuple[JobStatus | UnreadableJob, ...] = ()
    """The newest first."""
    workers: Mapping[str, Mapping[str, str]] | None = None
    """Worker -> what it tells of itself; None before the first reading."""
    full: bool = False
    """Whether Redis has no room."""
    trouble: str = ""
    """What is wrong with Redis' policy, and the remedy; empty as a rule."""
    read: float = 0.0
    """When it was read: Unix time, seconds; 0.0 for never."""
    away: Away | None = None
    """Set while the ledger cannot be read; all else is then as it was before."""

    @property
    def readable(self) -> list[JobStatus]:
        """The jobs that can be read."""
        return [job for job in self.jobs if isinstance(job, JobStatus)]

    @property
    def alive(self) -> Mapping[str, Mapping[str, str]]:
        """The workers that are heard of."""
        return {} if self.workers is None else self.workers

    def job(self, job_id: str) -> JobStatus | UnreadableJob | None:
        """The job of this id; None if there is none."""
        return next((job for job in self.jobs if job.job_id == job_id), None)


class LedgerWatch:
    """Reads the ledger for all pages. Threads may share it."""

    def __init__(self, connect: Callable[[], LedgerView]) -> None:
        """`connect` gives the ledger: asked first, and again after each failure, for the next `imagemill run`
        has another Redis. It raises LedgerError if there is none."""
        self._connect = connect
        self._ledger: LedgerView | None = None
        self._lock = threading.Lock()
        self._snapshot, self._looked = Snapshot(), float("-inf")

    @property
    def ledger(self) -> LedgerView:
        """The ledger itself, for what no snapshot holds. Raises LedgerError."""
        ledger = self._ledger  # read once: another thread may lose it meanwhile
        if ledger is None:
            ledger = self._ledger = self._connect()
        return ledger

    def ask(self, question: Callable[[LedgerView], _Answer]) -> _Answer:
        """The ledger's answer to what no snapshot holds. Raises LedgerError; the next one connects again."""
        try:
            return question(self.ledger)
        except LedgerError:
            self._ledger = None
            raise

    def now(self) -> Snapshot:
        """The ledger, a second old at most; as it was last, if it cannot be read."""
        # While one visitor waits for a Redis that hangs, the others get what is known.
        if self._lock.acquire(blocking=self._looked == float("-inf")):
            try:
                if time.monotonic() - self._looked >= OLDEST:
                    self._snapshot = self._read()
                    self._looked = time.monotonic()
            finally:
                self._lock.release()
        return self._snapshot

    def _read(self) -> Snapshot:
        try:
            ledger = self.ledger
            jobs, workers, memory = ledger.jobs(), ledger.workers(), redis_memory(ledger.client)
        except LedgerError as error:
            self._ledger = None
            before = self._snapshot.away
            since = time.time() if before is None else before.since
            return replace(self._snapshot, away=Away(since, str(error)))
        return Snapshot(
            jobs=tuple(reversed(jobs)),
            workers=workers,
            full=memory.full,
            trouble=eviction_trouble(memory.policy),
            read=time.time(),
        )
