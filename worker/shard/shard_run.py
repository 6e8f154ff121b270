"""One claimed shard, from its requests to its commit: adopt, order, record, commit, complete.

Runs on a task thread; the engine renders, the engine's writers save. A death at any line loses nothing: the
next attempt finds what is saved, and only records what is committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from jobs.errors import ImagemillError, InputsAway, OutputError, RenderError
from jobs.failpoints import failpoint
from jobs.inputs.bucket_inputs import BucketInputs
from jobs.inputs.inputs import Inputs, KeptInputs
from jobs.ledger.job import JobSpec
from jobs.ledger.shard import Shard, decode_shard, read_base
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.output_root import check_output_within, check_path_within
from jobs.render_command import reproducing_command
from worker.engine.renderer import Stopped
from worker.engine.request_queue import Order
from worker.lease.lease import GiveBack, Lease
from worker.shard.arrivals import Arrival, Arrivals
from worker.shard.buckets import Buckets
from worker.shard.results import ShardResults
from worker.shard.store import ShardStore, committed_shard
from worker.shard.workplace import Workplace

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class ShardRun:
    """Renders one shard under its lease."""

    def __init__(self, lease: Lease, spec: JobSpec, workplace: Workplace) -> None:
        self._lease, self._spec = lease, spec
        self._engine, self._root, self._space = workplace.engine, workplace.root, workplace.space
        self._buckets = Buckets(lease, spec, workplace, self._with_space)
        self._claim, self._ledger = lease.claim, lease.ledger
        self._number = int(lease.claim.shard)
        self._output = Output.at(spec.output)
        self._results = ShardResults()
        self._ordered: dict[Order, int] = {}
        """Every order's index in the job."""
        self._adopted = 0
        self._began = time.monotonic()

    def run(self) -> str:
        """Renders what the shard lacks and commits it; "committed", or "found committed" by another attempt.

        Raises GiveBack once what is finished was recorded; other errors leave that to the next attempt.
        """
        check_output_within(self._output, self._root)
        self._with_space(self._lease.begin)
        if self._with_space(lambda: self._output.committed(self._number)):
            return self._found_committed()
        store = self._with_space(self._open_store)
        arrivals = Arrivals(store, self._with_space)
        self._adopt(store)
        self._lease.list_in_flight(self._in_flight)
        try:
            self._record(self._results)
            for positions, alone in self._missing():
                self._render(positions, alone, arrivals)
            if not self._with_space(lambda: store.commit(list(self._results.failed.values()))):
                return self._found_committed()
        except GiveBack:
            self._keep_finished(arrivals)
            raise
        self._complete()
        self._buckets.report_work()
        return "committed"

    def report(self, ended: str) -> dict[str, Any]:
        """What was done, as the task's result shows it."""
        return {
            "job": self._claim.job_id,
            "shard": self._number,
            "ended": ended,
            "rendered": max(0, len(self._results.done) - self._adopted),
            "adopted": self._adopted,
            "failed": len(self._results.failed),
            "seconds": round(time.monotonic() - self._began, 2),
        }

    @cached_property
    def _shard(self) -> Shard:
        """The shard's requests. Raises BrokenShard, and LedgerError for another version's."""
        base = read_base(self._spec.base)
        return decode_shard(self._claim.blob, base, self._spec.name)

    @cached_property
    def _inputs(self) -> Inputs:
        """Where the files are that the requests name."""
        near = KeptInputs(self._output.inputs, self._shard.inputs)
        return BucketInputs(self._output.store, near) if self._output.in_bucket else near

    def _open_store(self) -> ShardStore:
        store = ShardStore(
            self._output,
            self._number,
            self._claim.attempt,
            self._shard.entries,
            job_id=self._claim.job_id,
            column_names=self._spec.column_names,
            adopt_below=self._lease.patiently(lambda: self._ledger.first_shard(self._claim.job_id)),
            layout=self._spec.layout,
            places=self._shard.indices if self._shard.in_order else None,
            confirm=self._lease.confirm,
        )
        if not self._output.in_bucket:
            check_path_within(store.folder, Path(self._root))
        return store

    def _with_space(self, write: Callable[[], Result]) -> Result:
        """Writes once the disk has space; gives the shard back when the worker has to stop meanwhile."""
        try:
            return self._space.write(self._output, write, self._lease.check)
        except Stopped:
            raise GiveBack("released") from None
        except OSError as error:
            raise self._output.cannot_use(error) from None

    # Adopt.

    def _adopt(self, store: ShardStore) -> None:
        """Takes over what earlier attempts finished, and fails what they died of."""
        self._results.done = self._with_space(store.adopt)
        self._results.flagged = store.flagged()
        self._adopted = len(self._results.done)
        self._results.failed = self._condemned()

    def _condemned(self) -> dict[int, Failure]:
        """What is not rendered again: each worker that rendered it, alone, died."""
        reason = "the worker died each time that it rendered this image alone (its log may say why)"
        return {
            position: self._failure(position, reason)
            for position, index in enumerate(self._shard.indices)
            if index in self._claim.condemned and position not in self._results.done
        }

    # Order, and record what arrives.

    def _missing(self) -> Sequence[tuple[set[int], bool]]:
        """Positions to render, and whether one by one: first what may have killed a worker."""
        missing = set(range(len(self._shard.entries))) - self._results.ended
        indices = self._shard.indices
        suspects = {p for p in missing if self._claim.all_suspect or indices[p] in self._claim.suspects}
        if suspects:
            log.warning("workers died over this shard: rendering %d of its images one by one", len(suspects))
        return ((suspects, True), (missing - suspects, False))

    def _render(self, positions: set[int], alone: bool, arrivals: Arrivals) -> None:
        """Orders images and records results as they arrive, until each of them is done or failed."""
        outstanding = set(positions)
        orders = [self._order(position, alone, arrivals) for position in sorted(positions)]
        self._engine.submit(orders)
        try:
            while outstanding:
                arrived = self._take_in(arrivals.collect())
                outstanding -= arrived.ended
                self._record(arrived)
                self._lease.check()
                if arrived.away:
                    self._with_space(self._reach_inputs)
                    again = [self._order(position, alone, arrivals) for position in sorted(arrived.away)]
                    orders += again
                    self._engine.submit(again)
        finally:
            if outstanding:
                # What is in the slots now is delivered and saved: the next attempt adopts it.
                self._engine.withdraw(orders)
            self._buckets.report_caps()

    def _reach_inputs(self) -> None:
        """Raises Unreachable while the bucket gives no answer that keeps the requests' files."""
        if isinstance(self._inputs, BucketInputs):
            self._inputs.reach()

    def _order(self, position: int, alone: bool, arrivals: Arrivals) -> Order:
        """The order of an image."""
        request, index = self._shard.entries[position].request, self._shard.indices[position]
        bucket = self._buckets.of(request)
        context = {"job": self._claim.job_id, "shard": self._number, "image_id": request.image_id}
        begin = partial(self._begin_alone, index) if alone else None
        order = Order(bucket, request, self._inputs, partial(arrivals.save_picture, position), context, begin)
        self._ordered[order] = index
        return order

    def _begin_alone(self, index: int) -> None:
        """Reports to the ledger what to blame if this process dies now; on the engine's thread."""
        try:
            self._lease.patiently(lambda: self._ledger.begin_alone(self._claim, index))
        except GiveBack:
            raise Stopped from None

    def _in_flight(self) -> list[int]:
        """The images of this shard, by their index in the job, that a death of the process would cost now."""
        return [
            index for order in self._engine.in_flight() if (index := self._ordered.get(order)) is not None
        ]

    def _take_in(self, arrived: Sequence[Arrival]) -> ShardResults:
        """Adds what arrived to the shard's results and returns it as results of its own.

        Raises what ends the run, once everything else was taken in.
        """
        new, ends = ShardResults(), list[Exception]()
        for one in arrived:
            if isinstance(one.error, InputsAway):
                new.away.append(one.position)
            elif isinstance(one.error, RenderError):
                new.failed[one.position] = self._failure(one.position, str(one.error))
            elif one.error is not None:
                ends.append(one.error)
            else:
                new.done.append(one.position)
                new.flagged |= {one.position} if one.flagged else set()
        self._results.add(new)
        if ends:
            raise ends[0]
        return new

    def _failure(self, position: int, reason: str) -> Failure:
        entry = self._shard.entries[position]
        slots = self._engine.fitting(self._buckets.of(entry.request)).slots
        log.error("image %s failed: %s", entry.request.image_id, reason)
        return Failure(
            shard=self._number,
            position=position,
            entry=entry,
            reason=reason,
            job_id=self._claim.job_id,
            command=reproducing_command(
                entry.request,
                self._spec.model,
                slots,
                self._shard.inputs.keys(),
                self._output.label if self._output.in_bucket else None,
            ),
        )

    def _record(self, results: ShardResults) -> None:
        if results.ended:
            in_job = results.in_job(self._shard)
            self._lease.patiently(lambda: self._ledger.record(self._claim, *in_job))

    # Commit and complete, or give back.

    def _keep_finished(self, arrivals: Arrivals) -> None:
        """Records what was saved by now, before the shard goes back."""
        self._engine.flush(timeout=2.0)
        try:
            with suppress(GiveBack):  # from other writers that waited for space
                self._take_in(arrivals.collect())
            self._ledger.record(self._claim, *self._results.in_job(self._shard))
        except (ImagemillError, OSError) as error:
            log.warning("what is finished could not be recorded (%s): the next attempt finds it", error)

    def _found_committed(self) -> str:
        """Records what another attempt committed before it died, or while this one was at it."""
        committed = self._with_space(lambda: committed_shard(self._output, self._number))
        positions = {entry.request.image_id: position for position, entry in enumerate(self._shard.entries)}
        there = [*committed.image_ids, *(failure.image_id for failure in committed.failures)]
        if sorted(there) != sorted(positions):
            self._with_space(
                self._lease.confirm
            )  # a late attempt finds what a newer job committed under its number
            raise OutputError(
                f"{self._output.stored(self._number).label} holds other images than shard {self._number} of "
                f"{self._claim.job_id}: was it written by another job, or changed by hand? Move it elsewhere"
            )
        self._results = ShardResults(
            [positions[image_id] for image_id in committed.image_ids],
            {positions[failure.image_id]: failure for failure in committed.failures},
            {positions[image_id] for image_id in committed.flagged},
        )
        self._adopted = len(self._results.done)
        self._complete()
        return "found committed"

    def _complete(self) -> None:
        failpoint("before complete")
        in_job = self._results.in_job(self._shard)
        self._lease.patiently(lambda: self._ledger.complete(self._claim, *in_job))
