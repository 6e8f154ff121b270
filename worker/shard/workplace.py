"""What a worker process has for each shard that it renders."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.ledger.job import SlotsKey
from jobs.settings import Settings
from worker.engine.engine import Engine
from worker.engine.renderer import Pipeline
from worker.lease.disk_space import DiskSpace


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept from shard to shard."""

    kinds: dict[Pipeline, tuple[str, str]] = field(default_factory=dict)
    """Device and precision: a question to the engine may wait for a whole bucket."""
    warned: set[tuple[str, SlotsKey]] = field(default_factory=set)
    """Jobs, by incarnation, and sizes that were warned about."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """One for a process; its engine serves every shard."""

    engine: Engine
    root: str
    """The folder, or the place in a bucket, below which outputs lie."""
    space: DiskSpace
    settings: Settings
    known: Known = field(default_factory=Known)
