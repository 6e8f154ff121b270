"""The failures of a job, with the command that renders each again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.errors import LedgerError, OutputError
from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.output.output import Output
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.outputs import Outputs

MOST: Final = 20
"""Failures that a page shows."""
_KEPT: Final = 64
"""Jobs whose failures are remembered."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A failure as a page shows it."""

    index: int
    image_id: str
    shard: int
    reason: str
    command: str
    """The shell command that renders the image again; empty until its shard is committed, and where its
    output cannot be read."""


@dataclass(frozen=True, slots=True)
class Failures:
    """What failed of a job."""

    shown: tuple[Shown, ...] = ()
    more: int = 0
    """How many are not shown."""
    trouble: str = ""
    """Why the commands, or all of it, cannot be read; empty as a rule."""


class FailureList:
    """Reads failures of jobs, and remembers them until there are others. Threads may share it."""

    def __init__(self, watch: LedgerWatch, outputs: Outputs) -> None:
        self._watch, self._outputs = watch, outputs
        self._known: OrderedDict[str, tuple[object, Failures]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: JobStatus | UnreadableJob) -> Failures:
        """The first failures of a job."""
        if isinstance(job, UnreadableJob) or not job.failed:
            return Failures()
        # Each shard that ends may bring a command.
        state = (job.created, job.run, job.failed, job.shards_leased, job.shards_ready, job.state)
        with self._lock:
            known = self._known.get(job.job_id)
        if known is not None and known[0] == state:
            return known[1]
        try:
            found = self._read(job)
        except LedgerError as error:
            return Failures(trouble=str(error)) if known is None else known[1]
        with self._lock:
            self._known[job.job_id] = (state, found)
            self._known.move_to_end(job.job_id)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

    def _read(self, job: JobStatus) -> Failures:
        failures = self._watch.ledger.failures(job.job_id)
        first = {index: _in_shard(failures[index]) for index in list(failures)[:MOST]}
        trouble, commands = "", {}
        try:
            commands = _commands(self._outputs.of_job(job.output), set(first.values()))
        except (OutputError, OSError, ValueError) as error:
            trouble = f"the commands that render them again cannot be read here: {error}"
        shown = []
        for index, shard in first.items():
            image_id, reason = str(failures[index]["image_id"]), str(failures[index]["reason"])
            shown.append(Shown(index, image_id, shard, reason, commands.get((shard, image_id), "")))
        return Failures(tuple(shown), len(failures) - len(first), trouble)


def _in_shard(failure: Mapping[str, Any]) -> int:
    """The shard of a failure; -1 where the ledger holds anything else there."""
    shard = failure["shard"]
    return shard if isinstance(shard, int) and shard >= 0 else -1


def _commands(output: Output, shards: Collection[int]) -> dict[tuple[int, str], str]:
    """Shard and image_id -> command, of those of these shards that are committed."""
    with output.reading():
        there = [shard for shard in sorted(shards) if shard >= 0 and output.committed(shard)]
        found = [(shard, one) for shard, stored in output.in_turn(there) for one in stored.failures()]
    return {(shard, one.image_id): one.command for shard, one in found}
