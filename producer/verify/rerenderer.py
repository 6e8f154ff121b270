"""Where images are rendered again: jobs of their own in the queue, and outputs that go in the end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jobs.connection import redis_url
from jobs.entry import Entry
from jobs.errors import JobError, LedgerError
from jobs.ledger.job import Addition, JobSpec, JobStatus, NewShard
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.output import Output
from jobs.settings import Settings
from jobs.wording import on_one_line
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow_job
from producer.job_queue import JobQueue
from producer.own_worker import own_worker
from producer.progress import show_progress
from producer.reporter import StandardError
from producer.requests.grouping import parts as in_shards
from producer.requests.shard_size import ShardSize
from producer.verify.comparison import StoredPicture
from producer.verify.not_comparable import NotComparable
from producer.verify.parts import Part
from producer.verify.scratch import NAME, Scratch, scratch

_SHARD_SIZE: Final = 32
"""Images a task: few, so that all workers take part."""
_PRIORITY: Final = 5
_RETENTION: Final = 600
"""Seconds that a finished job stays in Redis: its folder is gone by then."""
_PATIENCE: Final = 60.0
"""Seconds that jobs which are cancelled are waited for: workers give up at their next step."""


@dataclass(frozen=True, slots=True)
class Rerendered:
    """One image that was rendered again."""

    output: Output
    shard: int
    record: Mapping[str, Any]

    def read(self) -> StoredPicture:
        """The picture and its record. Raises NotComparable where it is not there."""
        for _name, data in self.output.pictures(self.shard, [self.record["file_name"]]):
            return StoredPicture(self.record, data)
        raise NotComparable(
            f"{self.output.label}: what was rendered again is gone: run the same command again"
        )


@dataclass(slots=True)
class Rerenderer:
    """A queue, and the place in which its workers render."""

    queue: JobQueue
    scratch: Scratch
    check: Callable[[], None]
    """Raises ImagemillError when what renders has ended."""
    has_own_worker: bool
    quiet: bool
    _running: set[str] = field(default_factory=set)
    """The jobs that may not have ended."""
    _made: int = 0

    def render(self, parts: Sequence[Part]) -> dict[str, Rerendered | NotComparable]:
        """Renders images again; returns by image_id what came of each.

        Raises ImagemillError where Redis, or the command's own worker, is gone.
        """
        submitted = [(self._submit(part), part) for part in parts]
        found: dict[str, Rerendered | NotComparable] = {}
        for (job_id, output), part in submitted:
            why = self._followed(job_id)
            for shard, stored in output.in_turn():
                for record in stored.records():
                    found[record["image_id"]] = Rerendered(output, shard, record)
                for failure in stored.failures():
                    found[failure.image_id] = NotComparable(
                        f"could not be rendered again: {on_one_line(failure.reason)}"
                    )
            for image_id in part.requests:
                found.setdefault(image_id, NotComparable(f"could not be rendered again: {why}"))
        return found

    def clear(self) -> None:
        """Removes what was rendered until now."""
        self.scratch.clear()

    def end(self) -> None:
        """Cancels the jobs that still run, and waits until their workers have let go of the place."""
        deadline = time.monotonic() + _PATIENCE
        for job_id in list(self._running):
            with suppress(LedgerError, JobError):
                self._end(job_id, deadline)

    def _submit(self, part: Part) -> tuple[str, Output]:
        """Makes a job of the part; returns its id and its output."""
        self._made += 1
        output, paths = self.scratch.output(self._made, part), self.scratch.named(part)
        ledger, kind = self.queue.ledger, part.kind
        entries = ((image_id, Entry.of(request)) for image_id, request in part.requests.items())
        shards: list[NewShard] = []
        total = 0
        for one in in_shards(entries, (), ShardSize(_SHARD_SIZE)):
            if one.entries:
                here = [entry for _image_id, entry in one.entries]
                named = {one: paths[one] for entry in here for one in entry.inputs if one in paths}
                blob = encode_shard(Shard(one.places, here, True, named), kind.base)
                shards.append(NewShard(len(shards), len(here), blob))
                total += len(here)
        spec = JobSpec(
            manifest={"name": NAME, "model": kind.base.model},
            base=kind.base.written(),
            name=NAME,
            output=output.label,
            layout="webdataset" if output.in_bucket else "files",
            model=kind.source.model,
            revision=kind.source.revision,
            precision=kind.base.precision,
            column_names=(),
            shard_size=_SHARD_SIZE,
            priority=_PRIORITY,
            max_failures=None,
            retention=_RETENTION,
            mode=kind.mode,
            further_models=kind.source.further,
        )
        # No other job has this digest: nobody attaches to it.
        job_id, _created = ledger.create(spec, secrets.token_hex(32), 1)
        self._running.add(job_id)
        addition = Addition(cursor=0, new_cursor=total, seal=True, shards=shards)
        ledger.add(job_id, ledger.incarnation(job_id), addition)
        self.queue.wake_for(len(shards))
        return job_id, output

    def _followed(self, job_id: str) -> str:
        """Waits until a job has ended; returns why it may have left images out."""
        ledger = self.queue.ledger
        try:
            statuses = follow_job(
                ledger, job_id, StandardError(), check=self.check, own_worker=self.has_own_worker
            )
            end = self._shown(statuses)
        except JobError as error:
            try:
                refusals = sorted(set(ledger.status(job_id).refusals.values()))
            except JobError:
                self._running.discard(job_id)
                return f"{job_id} is gone from Redis: run the same command again"
            self._end(job_id, time.monotonic() + _PATIENCE)
            return f"no worker takes it: {on_one_line('; '.join(refusals))}" if refusals else str(error)
        self._running.discard(job_id)
        if end.outcome in ("complete", "failures"):
            return "the worker wrote no picture of it: read its log"
        return f"{job_id} was {end.outcome}{f' ({end.reason})' if end.reason else ''}"

    def _shown(self, statuses: Iterator[JobStatus]) -> JobStatus:
        if not self.quiet:
            return show_progress(statuses)
        *_, end = statuses
        return end

    def _end(self, job_id: str, deadline: float) -> None:
        """Cancels a job until it has ended, or until the deadline. Raises JobError, LedgerError."""
        ledger = self.queue.ledger
        while ledger.status(job_id).state != "finished" and time.monotonic() < deadline:
            with suppress(JobError):  # it is finishing: its worker ends it
                ledger.control(job_id, "cancel", "the verification was stopped")
            ledger.reap()
            time.sleep(0.1)
        self._running.discard(job_id)


@contextmanager
def rerendering(
    output: Output, settings: Settings, into: Path | str | None, gpus: str, *, quiet: bool
) -> Iterator[Rerenderer]:
    """What renders images of `output` again, and of which nothing is left afterwards.

    The Redis that the settings name, with the workers that run; without one, a Redis and a worker (`gpus`) of
    its own. `into`: where pictures lie meanwhile (`scratch`). Raises ImagemillError.
    """
    own = settings.redis_url is None
    with ExitStack() as stack:
        place = stack.enter_context(scratch(output, settings, into, own))
        server: EmbeddedRedis | None = None
        if own:
            server = stack.enter_context(EmbeddedRedis())
            url = server.url
        else:
            url = redis_url(settings)
        queue = JobQueue.at(url, settings)
        queue.check()
        worker = None
        if own:
            worker = stack.enter_context(own_worker(url, settings, output.label, gpus, root=place.place))

        def check() -> None:
            if server is not None and not server.alive:
                raise LedgerError("the Redis of this verification ended: run the same command again")
            if worker is not None:
                worker.check()

        rerenderer = Rerenderer(queue, place, check, own, quiet)
        if not own:  # its own worker is stopped, and its Redis with all jobs goes
            stack.callback(rerenderer.end)
        yield rerenderer
