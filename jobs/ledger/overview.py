"""All of the ledger at once, for those who watch the mill: jobs, workers, what was counted, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.ledger.eviction import RedisMemory
from jobs.ledger.job import JobStatus, UnreadableJob


@dataclass(frozen=True, slots=True)
class Counted:
    """How often something happened since the first time, or since Redis lost the figure."""

    lease_expiries: int = 0
    """Leases that ran out: a worker died, or was cut off."""
    refusals: int = 0
    """Jobs that a worker gave back because it cannot render them."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The ledger at one moment, as nearly as a few calls give it."""

    jobs: Sequence[JobStatus | UnreadableJob]
    """Oldest first."""
    workers: Mapping[str, Mapping[str, str]]
    """Worker with a heartbeat -> what it tells of itself."""
    counted: Counted | None
    """None where this user of Redis has no right to read it: its list of rights is an earlier version's."""
    memory: RedisMemory
    now: float
    """Redis' clock, in seconds since 1970."""
