"""One claimed shard, from its requests to its commit: adopt, order, record, commit, complete.

Runs on a task thread; the engine renders, the engine's writers save. Nothing here is lost by dying at any
line: what is saved is found by the next attempt, what is committed is only recorded by it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobs.errors import (
    ImagemillError,
    JobError,
    LatentsError,
    LeaseLost,
    LedgerError,
    LedgerUnavailable,
    ModelError,
    OutputError,
    RenderError,
)
from jobs.job import Claim, JobSpec
from jobs.latents import read_input
from jobs.ledger import Ledger
from jobs.metadata import Failure
from jobs.output import Output
from jobs.request import ImageRequest
from jobs.shard import Shard, decode_shard
from worker.disk_space import DiskSpace
from worker.engine import Engine, Order, Outcome, Pipeline
from worker.keeper import Keeper
from worker.logs import bound
from worker.render import reproducing_command
from worker.renderer import Stopped
from worker.store import ShardStore, committed_shard

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a task did with its shard, as Flower shows it."""

    job: str
    shard: int
    ended: str
    """committed, found committed, released, lost, refused or cancelled."""
    rendered: int = 0
    adopted: int = 0
    failed: int = 0
    seconds: float = 0.0


class ShardRun:
    """Renders one shard under its lease."""

    def __init__(
        self,
        claim: Claim,
        spec: JobSpec,
        *,
        ledger: Ledger,
        keeper: Keeper,
        engine: Engine,
        worker: str,
        root: Path,
        space: DiskSpace,
        stop: threading.Event,
    ) -> None:
        self._claim, self._spec, self._ledger, self._keeper = claim, spec, ledger, keeper
        self._engine, self._worker, self._stop = engine, worker, stop
        self._root, self._space = root, space
        self._number = int(claim.shard)
        self._output = Output(Path(spec.output))
        self._delivered: queue.SimpleQueue[tuple[int, Exception | None]] = queue.SimpleQueue()
        self._done: list[int] = []
        self._failed: dict[int, Failure] = {}
        self._began = time.monotonic()

    def run(self) -> ShardReport:
        """Renders what the shard lacks and commits it, or gives it back and says why."""
        adopted = 0
        try:
            self._output.check_within(self._root)
            base = ImageRequest.from_mapping(self._spec.base)
            shard = decode_shard(self._claim.blob, base, self._spec.name)
            if self._output.committed(self._number):
                return self._found_committed(shard)
            store = self._with_space(lambda: self._store(shard))
            self._done = self._with_space(store.adopt)
            adopted = len(self._done)
            self._record(shard, self._done, {})
            self._render(shard, store)
            if not self._with_space(lambda: store.commit(list(self._failed.values()))):
                return self._found_committed(shard)
            self._complete(shard)
            return self._report("committed", adopted)
        except _GiveBack as reason:
            self._give_back(shard)
            return self._report(reason.ended, adopted)
        except (LeaseLost, JobError) as error:
            log.warning("%s; leaving this shard", error)
            return self._report("lost", adopted)
        except OSError as error:
            return self._refuse(f"{self._output.path}: {error}", adopted)
        except (ModelError, OutputError, LedgerError) as error:
            return self._refuse(str(error), adopted)

    def _store(self, shard: Shard) -> ShardStore:
        return ShardStore(
            self._output,
            self._number,
            self._claim.attempt,
            shard.entries,
            job_id=self._claim.job_id,
            column_names=self._spec.column_names,
            adopt_below=self._patiently(lambda: self._ledger.first_shard(self._claim.job_id)),
        )

    def _with_space(self, write: Callable[[], Result]) -> Result:
        """Writes once the disk has space; gives the shard back when told to stop meanwhile."""
        try:
            return self._space.write(self._output, write, self._check_lease)
        except Stopped:
            raise _GiveBack("released") from None

    def _render(self, shard: Shard, store: ShardStore) -> None:
        """Orders what is missing and records results as they come, until every position is done or failed."""
        outstanding = set(range(len(shard.entries))) - set(self._done)
        orders = [order for position in sorted(outstanding) if (order := self._order(shard, store, position))]
        self._engine.submit(orders)
        try:
            while outstanding:
                done, failed = self._collect(shard)
                outstanding -= {*done, *failed}
                self._record(shard, done, failed)
                self._check_lease()
        finally:
            if outstanding:
                # What is in the micro-batch now is delivered and saved: the next attempt adopts it.
                self._engine.withdraw(orders)

    def _order(self, shard: Shard, store: ShardStore, position: int) -> Order | None:
        request = shard.entries[position].request
        latents = None
        if request.init_latents is not None:
            try:
                latents = read_input(self._output.inputs, request.init_latents)
            except LatentsError as error:
                self._delivered.put((position, RenderError(str(error))))
                return None
        pipeline = Pipeline(self._spec.model, self._spec.revision, self._spec.precision)
        return Order(pipeline, request, latents, partial(self._deliver, store, position, request))

    def _deliver(self, store: ShardStore, position: int, request: ImageRequest, outcome: Outcome) -> None:
        """Saves a picture, on a writer's thread; a full disk makes it wait, never fail."""
        with bound(job=self._claim.job_id, shard=self._number, image_id=request.image_id):
            if isinstance(outcome, ImagemillError):
                self._delivered.put((position, outcome))
                return
            try:
                self._with_space(
                    lambda: store.save(position, outcome.picture.pixels, outcome.rendered_by, outcome.flagged)
                )
            except (ImagemillError, _GiveBack) as error:
                self._delivered.put((position, error))
            except OSError as error:
                self._delivered.put((position, OutputError(f"{self._output.path}: {error}")))
            except Exception as error:
                log.exception("the picture cannot be saved")
                self._delivered.put(
                    (position, RenderError(f"cannot be saved: {type(error).__name__}: {error}"))
                )
            else:
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
                failed[position] = Failure(
                    shard=self._number,
                    position=position,
                    entry=shard.entries[position],
                    reason=str(result),
                    job_id=self._claim.job_id,
                    command=reproducing_command(
                        shard.entries[position].request, self._spec.model, self._output.inputs
                    ),
                )
                log.error("image %s failed: %s", shard.entries[position].request.image_id, result)
            elif result is not None:
                end = result if end is None else end
            else:
                done.append(position)
        self._done += done
        self._failed |= failed
        if end is not None:
            raise end
        return done, failed

    def _check_lease(self) -> None:
        state = self._keeper.state(self._claim)
        if state == "lost":
            raise LeaseLost(f"{self._claim.job_id}: shard {self._number} is another attempt's by now")
        if state == "ending":
            raise _GiveBack("cancelled")
        if self._stop.is_set():
            raise _GiveBack("released")

    def _record(self, shard: Shard, done: list[int], failed: dict[int, Failure]) -> None:
        if done or failed:
            indices, failures = self._in_job(shard, done, failed)
            self._patiently(lambda: self._ledger.record(self._claim, indices, failures))

    def _refuse(self, reason: str, adopted: int) -> ShardReport:
        """Gives the shard back for another worker, with the reason why this one cannot."""
        log.error("this worker does not take %s: %s", self._claim.job_id, reason)
        try:
            self._ledger.refuse(self._claim, self._worker, reason)
        except LedgerUnavailable as error:
            log.warning("%s: the lease runs out", error)
        return self._report("refused", adopted)

    def _give_back(self, shard: Shard) -> None:
        """Keeps what is finished, then returns the shard; a lease that cannot be returned runs out."""
        try:
            self._engine.flush(timeout=2.0)
            with suppress(_GiveBack):  # of the other writers that waited for space
                self._collect(shard)
            self._record(shard, self._done, self._failed)
            self._ledger.release(self._claim)
        except (_GiveBack, LeaseLost, LedgerUnavailable) as error:
            log.warning("the shard could not be returned (%s): its lease runs out", error)

    def _complete(self, shard: Shard) -> None:
        indices, failures = self._in_job(shard, self._done, self._failed)
        self._patiently(lambda: self._ledger.complete(self._claim, indices, failures))

    def _found_committed(self, shard: Shard) -> ShardReport:
        """Records what another attempt committed before it died, or while this one was at it."""
        held, failures = committed_shard(self._output, self._number)
        positions = {entry.request.image_id: position for position, entry in enumerate(shard.entries)}
        self._done = [positions[image_id] for image_id in held]
        self._failed = {failure.position: failure for failure in failures}
        self._complete(shard)
        return self._report("found committed", 0)

    def _in_job(
        self, shard: Shard, done: list[int], failed: dict[int, Failure]
    ) -> tuple[list[int], dict[int, dict[str, object]]]:
        """Positions in the shard as indices in the job, with what the ledger keeps of a failure."""
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
        return indices, kept

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """Makes a ledger call until Redis answers; gives the shard back when told to stop meanwhile."""
        while True:
            try:
                return call()
            except LedgerUnavailable as error:
                log.warning("%s; waiting", error)
                if self._stop.wait(1.0):
                    raise _GiveBack("released") from None

    def _report(self, ended: str, adopted: int) -> ShardReport:
        return ShardReport(
            self._claim.job_id,
            self._number,
            ended,
            max(0, len(self._done) - adopted),
            adopted,
            len(self._failed),
            round(time.monotonic() - self._began, 2),
        )


class _GiveBack(Exception):
    """The shard goes back to the ledger unfinished; `ended` is what the report says."""

    def __init__(self, ended: str) -> None:
        super().__init__(ended)
        self.ended = ended
