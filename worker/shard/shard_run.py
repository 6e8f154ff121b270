"""One claimed shard, from its requests to its commit: adopt, order, record, commit, complete.

Runs on a task thread; the engine renders, the engine's writers save. Nothing here is lost by dying at any
line: what is saved is found by the next attempt, what is committed is only recorded by it.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jobs.errors import ImagemillError, LatentsError, OutputError, RenderError
from jobs.failpoints import failpoint
from jobs.latents import read_input
from jobs.ledger.job import JobSpec
from jobs.ledger.shard import Shard, decode_shard
from jobs.output.metadata import Failure
from jobs.output.output import Output, check_within
from jobs.request import ImageRequest
from jobs.settings import Settings
from worker.engine.engine import Engine
from worker.engine.renderer import Stopped
from worker.engine.request_queue import Order, Outcome
from worker.lease.disk_space import DiskSpace
from worker.lease.lease import GiveBack, Lease
from worker.render import reproducing_command
from worker.shard.buckets import Buckets
from worker.shard.store import ShardStore, committed_shard

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class ShardRun:
    """Renders one shard under its lease."""

    def __init__(
        self, lease: Lease, spec: JobSpec, *, engine: Engine, root: Path, space: DiskSpace, settings: Settings
    ) -> None:
        self._lease, self._spec, self._engine = lease, spec, engine
        self._buckets = Buckets(lease, spec, engine, settings, self._with_space)
        self._root, self._space = root, space
        self._claim, self._ledger = lease.claim, lease.ledger
        self._number = int(lease.claim.shard)
        self._output = Output(Path(spec.output))
        self._delivered: queue.SimpleQueue[tuple[int, Exception | None]] = queue.SimpleQueue()
        self._done: list[int] = []
        self._failed: dict[int, Failure] = {}
        self._flagged: set[int] = set()
        self._ordered: dict[Order, int] = {}
        """Every order's index in the job."""
        self._adopted = 0
        self._began = time.monotonic()

    def run(self) -> str:
        """Renders what the shard lacks and commits it; "committed", or "found committed" by another attempt.

        Raises GiveBack once what is finished was recorded; other errors leave that to the next attempt.
        """
        self._output.check_within(self._root)
        base = ImageRequest.from_mapping(self._spec.base)
        shard = decode_shard(self._claim.blob, base, self._spec.name)
        if self._output.committed(self._number):
            return self._found_committed(shard)
        store = self._with_space(lambda: self._store(shard))
        self._done = self._with_space(store.adopt)
        self._flagged = store.flagged()
        self._adopted = len(self._done)
        self._failed = self._condemned(shard)
        self._lease.list_in_flight(self._in_flight)
        try:
            self._record(shard, self._done, self._failed)
            self._render(shard, store)
            if not self._with_space(lambda: store.commit(list(self._failed.values()))):
                return self._found_committed(shard)
        except GiveBack:
            self._keep_finished(shard)
            raise
        self._complete(shard)
        self._buckets.tell_work()
        return "committed"

    def report(self, ended: str) -> dict[str, Any]:
        """What was done, as the task's result shows it."""
        return {
            "job": self._claim.job_id,
            "shard": self._number,
            "ended": ended,
            "rendered": max(0, len(self._done) - self._adopted),
            "adopted": self._adopted,
            "failed": len(self._failed),
            "seconds": round(time.monotonic() - self._began, 2),
        }

    def _store(self, shard: Shard) -> ShardStore:
        store = ShardStore(
            self._output,
            self._number,
            self._claim.attempt,
            shard.entries,
            job_id=self._claim.job_id,
            column_names=self._spec.column_names,
            adopt_below=self._lease.patiently(lambda: self._ledger.first_shard(self._claim.job_id)),
            layout=self._spec.layout,
        )
        check_within(store.folder, self._root)
        return store

    def _with_space(self, write: Callable[[], Result]) -> Result:
        """Writes once the disk has space; gives the shard back when told to stop meanwhile."""
        try:
            return self._space.write(self._output, write, self._lease.check)
        except Stopped:
            raise GiveBack("released") from None
        except OSError as error:
            raise OutputError(f"{self._output.path}: {error}") from None

    def _condemned(self, shard: Shard) -> dict[int, Failure]:
        """What is not rendered again: each worker that rendered it, alone, died."""
        reason = "the worker died each time that it rendered this image alone (its log may say why)"
        return {
            position: self._failure(shard, position, reason)
            for position, index in enumerate(shard.indices)
            if index in self._claim.condemned and position not in self._done
        }

    def _in_flight(self) -> list[int]:
        """The images of this shard, by their index in the job, that a death of the process would cost now."""
        return [
            index for order in self._engine.in_flight() if (index := self._ordered.get(order)) is not None
        ]

    def _render(self, shard: Shard, store: ShardStore) -> None:
        """Renders what is missing: first, one by one, what may have killed a worker."""
        missing = set(range(len(shard.entries))) - set(self._done) - set(self._failed)
        suspects = {p for p in missing if self._claim.all_suspect or shard.indices[p] in self._claim.suspects}
        if suspects:
            log.warning("workers died over this shard: rendering %d of its images one by one", len(suspects))
        for positions, alone in ((suspects, True), (missing - suspects, False)):
            orders = [order for p in sorted(positions) if (order := self._order(shard, store, p, alone))]
            self._render_all(shard, positions, orders)

    def _render_all(self, shard: Shard, outstanding: set[int], orders: list[Order]) -> None:
        """Has orders rendered and records results as they come, until every position is done or failed."""
        self._engine.submit(orders)
        try:
            while outstanding:
                done, failed = self._collect(shard)
                outstanding -= {*done, *failed}
                self._record(shard, done, failed)
                self._lease.check()
        finally:
            if outstanding:
                # What is in the micro-batch now is delivered and saved: the next attempt adopts it.
                self._engine.withdraw(orders)
            self._buckets.tell_caps()

    def _order(self, shard: Shard, store: ShardStore, position: int, alone: bool) -> Order | None:
        request = shard.entries[position].request
        bucket = self._buckets.of(request)
        latents = None
        if request.init_latents is not None:
            try:
                latents = read_input(self._output.inputs, request.init_latents)
            except LatentsError as error:
                self._delivered.put((position, RenderError(str(error))))
                return None
        context = {"job": self._claim.job_id, "shard": self._number, "image_id": request.image_id}
        index = shard.indices[position]
        begin = partial(self._begin_alone, index) if alone else None
        order = Order(bucket, request, latents, partial(self._deliver, store, position), context, begin)
        self._ordered[order] = index
        return order

    def _begin_alone(self, index: int) -> None:
        """Tells the ledger what to blame should this process die now; on the engine's thread."""
        try:
            self._lease.patiently(lambda: self._ledger.begin_alone(self._claim, index))
        except GiveBack:
            raise Stopped from None

    def _deliver(self, store: ShardStore, position: int, outcome: Outcome) -> None:
        """Saves a picture, on a writer's thread; a full disk makes it wait, never fail."""
        if isinstance(outcome, ImagemillError):
            self._delivered.put((position, outcome))
            return
        try:
            self._with_space(
                lambda: store.save(position, outcome.picture.pixels, outcome.rendered_by, outcome.flagged)
            )
        except (ImagemillError, GiveBack) as error:
            self._delivered.put((position, error))
        except Exception as error:
            log.exception("the picture cannot be saved")
            self._delivered.put((position, RenderError(f"cannot be saved: {type(error).__name__}: {error}")))
        else:
            if outcome.flagged is not None:
                self._flagged.add(position)
            self._delivered.put((position, None))

    def _collect(self, shard: Shard) -> tuple[list[int], dict[int, Failure]]:
        """What was delivered since the last time; waits up to a tenth of a second for the first.

        Raises what ends the run, once everything else was taken in.
        """
        done: list[int] = []
        failed: dict[int, Failure] = {}
        end: Exception | None = None
        try:
            results = [self._delivered.get(timeout=0.1)]
        except queue.Empty:
            return done, failed
        while not self._delivered.empty():
            results.append(self._delivered.get())
        for position, result in results:
            if isinstance(result, RenderError):
                failed[position] = self._failure(shard, position, str(result))
            elif result is not None:
                end = result if end is None else end
            else:
                done.append(position)
        self._done += done
        self._failed |= failed
        if end is not None:
            raise end
        return done, failed

    def _failure(self, shard: Shard, position: int, reason: str) -> Failure:
        entry = shard.entries[position]
        slots = self._engine.fitting(self._buckets.of(entry.request)).slots
        log.error("image %s failed: %s", entry.request.image_id, reason)
        return Failure(
            shard=self._number,
            position=position,
            entry=entry,
            reason=reason,
            job_id=self._claim.job_id,
            command=reproducing_command(entry.request, self._spec.model, self._output.inputs, slots),
        )

    def _record(self, shard: Shard, done: list[int], failed: dict[int, Failure]) -> None:
        if done or failed:
            marks = self._in_job(shard, done, failed)
            self._lease.patiently(lambda: self._ledger.record(self._claim, *marks))

    def _keep_finished(self, shard: Shard) -> None:
        """Records what was saved by now, before the shard goes back."""
        self._engine.flush(timeout=2.0)
        try:
            with suppress(GiveBack):  # of other writers that waited for space
                self._collect(shard)
            self._ledger.record(self._claim, *self._in_job(shard, self._done, self._failed))
        except (ImagemillError, OSError) as error:
            log.warning("what is finished could not be recorded (%s): the next attempt finds it", error)

    def _complete(self, shard: Shard) -> None:
        failpoint("before complete")
        marks = self._in_job(shard, self._done, self._failed)
        self._lease.patiently(lambda: self._ledger.complete(self._claim, *marks))

    def _found_committed(self, shard: Shard) -> str:
        """Records what another attempt committed before it died, or while this one was at it."""
        committed = committed_shard(self._output, self._number)
        positions = {entry.request.image_id: position for position, entry in enumerate(shard.entries)}
        there = [*committed.image_ids, *(failure.image_id for failure in committed.failures)]
        if sorted(there) != sorted(positions):
            raise OutputError(
                f"{self._output.stored(self._number).path} holds other images than shard {self._number} of "
                f"{self._claim.job_id}: was it written by another job, or changed by hand? Move it elsewhere"
            )
        self._done = [positions[image_id] for image_id in committed.image_ids]
        self._flagged = {positions[image_id] for image_id in committed.flagged}
        self._failed = {positions[failure.image_id]: failure for failure in committed.failures}
        self._adopted = len(self._done)
        self._complete(shard)
        return "found committed"

    def _in_job(
        self, shard: Shard, done: list[int], failed: dict[int, Failure]
    ) -> tuple[list[int], dict[int, dict[str, object]], set[int]]:
        """Positions in the shard as indices in the job: done, failed, flagged."""
        indices = [shard.indices[position] for position in done]
        kept: dict[int, dict[str, object]] = {
            shard.indices[position]: {
                "shard": self._number,
                "position": position,
                "image_id": failure.image_id,
                "reason": failure.reason,
            }
            for position, failure in failed.items()
        }
        return indices, kept, {shard.indices[p] for p in self._flagged & set(done)}
