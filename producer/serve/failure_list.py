"""The failures of a job, with the command that renders each again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from anyio import to_thread

from jobs.errors import LedgerError, OutputError
from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.ledger.ledger_view import LedgerView
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.outputs import Outputs, key_of

MOST: Final = 20
"""Failures that a page shows."""
_LOOKED_AT: Final = 200
"""Failures that are read to show the first of them: a job may have a million."""
_KEPT: Final = 64
"""Jobs whose failures are remembered."""
PAUSE = 5.0
"""Seconds from one reading to the next at least, however many fail meanwhile."""
PATIENCE = 1.0
"""Seconds that a page waits for them."""
_READING: Final = "the commands that render them again are being read"


@dataclass(frozen=True, slots=True)
class Shown:
    """A failure as a page shows it."""

    index: int
    image_id: str
    shard: int
    position: int
    """In its shard, from 0."""
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


@dataclass(slots=True)
class _Known:
    """What is known of a job's failures."""

    failures: Failures = Failures()
    commands: Mapping[tuple[int, str], str] = field(default_factory=dict)
    """Shard and image_id -> command, of those that are shown."""
    state: object = None
    """What the job was like when they were read; None: they must be read again."""
    at: float = float("-inf")
    reading: asyncio.Task[None] | None = None


class FailureList:
    """Reads some failures of jobs for all visitors. It belongs to the event loop's thread."""

    def __init__(self, watch: LedgerWatch, outputs: Outputs) -> None:
        self._watch, self._outputs = watch, outputs
        self._known: OrderedDict[tuple[str, float], _Known] = OrderedDict()

    async def of(self, job: JobStatus | UnreadableJob) -> Failures:
        """Some failures of a job: the first, unless there are many.

        An output that gives no answer is not waited for: the commands are there later.
        """
        if isinstance(job, UnreadableJob) or not job.failed:
            return Failures()
        known = self._known.setdefault((job.job_id, job.created), _Known())
        self._known.move_to_end((job.job_id, job.created))
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        # Each shard that ends may bring a command.
        state = (job.run, job.failed, job.shards_leased, job.shards_ready, job.state)
        reads = known.reading is not None and not known.reading.done()
        if not reads and known.state != state and time.monotonic() - known.at >= PAUSE:
            known.state, known.at = state, time.monotonic()
            known.reading = asyncio.create_task(self._read(job, known))
        if known.reading is not None:
            done, _ = await asyncio.wait([known.reading], timeout=PATIENCE)
            for task in done:
                task.result()
                known.reading = None
        return known.failures

    async def _read(self, job: JobStatus, known: _Known) -> None:
        """Reads the failures, then the commands that are not known yet."""
        try:
            ask = partial(LedgerView.some_failures, job_id=job.job_id, most=_LOOKED_AT)
            found, count = await to_thread.run_sync(self._watch.ask, ask)
        except LedgerError as error:
            known.state = None
            if not known.failures.shown:
                known.failures = Failures(trouble=str(error))
            return
        first = {index: found[index] for index in list(found)[:MOST]}
        named = {(_in_shard(one), str(one["image_id"])) for one in first.values()}
        known.commands = {of: command for of, command in known.commands.items() if of in named}
        shards = {shard for shard, image_id in named if (shard, image_id) not in known.commands}
        known.failures = _shown(first, count, known.commands, _READING if shards else "")
        trouble = ""
        if shards:
            try:
                read = partial(self._commands, job.output, shards)
                threads = self._outputs.threads(key_of(job.output))
                known.commands |= await to_thread.run_sync(read, limiter=threads)
            except (OutputError, OSError, ValueError) as error:
                known.state = None
                trouble = f"the commands that render them again cannot be read here: {error}"
        known.failures = _shown(first, count, known.commands, trouble)

    def _commands(self, label: str, shards: Collection[int]) -> dict[tuple[int, str], str]:
        """Shard and image_id -> command, of those of these shards that are committed."""
        output = self._outputs.of_job(label)
        with output.reading():
            there = [shard for shard in sorted(shards) if shard >= 0 and output.committed(shard)]
            found = [(shard, one) for shard, stored in output.in_turn(there) for one in stored.failures()]
        return {(shard, one.image_id): one.command for shard, one in found}


def _shown(
    first: Mapping[int, Mapping[str, Any]],
    count: int,
    commands: Mapping[tuple[int, str], str],
    trouble: str,
) -> Failures:
    shown = []
    for index, failure in first.items():
        shard, image_id = _in_shard(failure), str(failure["image_id"])
        command = commands.get((shard, image_id), "")
        shown.append(Shown(index, image_id, shard, _place(failure), str(failure["reason"]), command))
    return Failures(tuple(shown), max(0, count - len(first)), trouble)


def _place(failure: Mapping[str, Any]) -> int:
    """The place of a failure in its shard; -1 where the ledger holds anything else there."""
    position = failure.get("position")
    return position if type(position) is int and position >= 0 else -1


def _in_shard(failure: Mapping[str, Any]) -> int:
    """The shard of a failure; -1 where the ledger holds anything else there."""
    shard = failure["shard"]
    return shard if isinstance(shard, int) and shard >= 0 else -1
