"""What the ledger says, read at most once a second however many look at the pages and ask for metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.errors import LedgerError, NoRedis
from jobs.ledger.eviction import eviction_trouble
from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.overview import Overview

_Answer = TypeVar("_Answer")
OLDEST = 1.0
"""Seconds that a reading is good for."""
STALE = 10.0
"""Seconds since the last one after which a visitor waits for the next: nobody had looked for some time."""


@dataclass(frozen=True, slots=True)
class Away:
    """That the ledger cannot be read now."""

    since: float
    """Unix time, seconds."""
    error: LedgerError

    @property
    def reason(self) -> str:
        """Why, and the remedy."""
        return str(self.error)


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
    overview: Overview | None = None
    """All that was read; None before the first reading."""
    away: Away | None = None
    """Set while the ledger cannot be read; all else is then as it was before."""

    @property
    def none_yet(self) -> bool:
        """Whether there is no Redis to read, and never was: as where only outputs are looked at."""
        return self.away is not None and isinstance(self.away.error, NoRedis) and not self.read

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
        """The ledger, a second old at most; as it was last, if it cannot be read.

        While one visitor waits for a Redis that hangs, the others get what is known.
        """
        self._look(wait=time.monotonic() - self._looked > STALE)
        return self._snapshot

    def overview(self) -> Overview:
        """All of the ledger, a second old at most. Raises LedgerError if it cannot be read."""
        self._look(wait=True)
        snapshot = self._snapshot
        if snapshot.away is not None:
            raise snapshot.away.error.with_traceback(None)
        assert snapshot.overview is not None
        return snapshot.overview

    def _look(self, *, wait: bool) -> None:
        """Reads the ledger if that was last done a while ago. `wait`: for a thread that does so already."""
        if self._lock.acquire(blocking=wait):
            try:
                if time.monotonic() - self._looked >= OLDEST:
                    self._snapshot = self._read()
                    self._looked = time.monotonic()
            finally:
                self._lock.release()

    def _read(self) -> Snapshot:
        try:
            seen = self.ask(LedgerView.overview)
        except LedgerError as error:
            before = self._snapshot.away
            since = time.time() if before is None else before.since
            return replace(self._snapshot, away=Away(since, error))
        return Snapshot(
            jobs=tuple(reversed(seen.jobs)),
            workers=seen.workers,
            full=seen.memory.full,
            trouble=eviction_trouble(seen.memory.policy),
            read=time.time(),
            overview=seen,
        )
