"""What one worker process holds: its ledger, its engine, its keeper; and what a wake-up makes it do."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from jobs.errors import JobError, LeaseLost, LedgerError, LedgerUnavailable, OutputError
from jobs.job import Claim, JobSpec
from jobs.ledger import Ledger
from jobs.output import Output
from jobs.settings import Settings
from worker.disk_space import DiskSpace
from worker.engine import Engine
from worker.finish import finish_output
from worker.job_report import job_report
from worker.keeper import Keeper
from worker.load_renderer import load_renderer
from worker.logs import bound
from worker.renderer import Stopped
from worker.shard_run import ShardRun

log = logging.getLogger(__name__)
_SPECS_KEPT = 4


class Runtime:
    """One worker process: task threads call `serve`, which claims and renders; one engine serves them all."""

    def __init__(self, settings: Settings, url: str, worker: str, wake: Callable[[int], None]) -> None:
        """`wake` sends wake-ups; nothing is started or connected yet."""
        self._settings, self._worker, self._wake = settings, worker, wake
        self._ledger = Ledger(url)
        self._root = (settings.output_root if settings.output_root is not None else Path.cwd()).resolve()
        self._stop = threading.Event()
        self._space = DiskSpace(int(settings.min_free_disk), self._stop)
        self._engine = Engine(lambda pipeline: load_renderer(pipeline, settings), rows=settings.rows)
        self._keeper = Keeper(
            self._ledger,
            worker,
            lease=settings.lease,
            models=settings.models,
            facts=self._facts,
            top_up=lambda waiting: wake(min(waiting, self._free_slots())),
        )
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        self._busy = 0
        self._loaded = ""
        self._last_busy = time.monotonic()
        self._specs: dict[tuple[str, str], JobSpec] = {}

    def start(self) -> None:
        """Starts the engine and the keeper."""
        self._engine.start()
        try:
            self._ledger.forget_refusals(self._worker)
        except LedgerUnavailable as error:
            log.warning("%s", error)
        self._keeper.start()

    def stop(self) -> None:
        """Tells every task to give its shard back, and the engine to leave after the step it is in."""
        self._stop.set()
        self._engine.stop()

    def close(self) -> None:
        """Waits for engine and keeper to end; after the tasks have."""
        self._engine.close()
        self._keeper.stop()

    def serve(self, announce: Callable[[str, str], None]) -> dict[str, object] | None:
        """Claims the next shard or finishing and does it; says what was done, None when there was nothing.

        `announce(job_id, shard)` is called once the claim is known.
        """
        if self._stop.is_set():
            return None
        try:
            with self._claiming:
                claim, spec = self._claim()
        except (LedgerError, JobError) as error:
            log.warning("%s; the keeper wakes this worker again", error)
            return None
        if claim is None or spec is None:
            return None
        self._keeper.hold(claim)
        try:
            announce(claim.job_id, claim.shard)
            with bound(job=claim.job_id, shard=int(claim.shard) if claim.kind == "shard" else None):
                return self._finish(claim, spec) if claim.kind == "finish" else self._render(claim, spec)
        finally:
            self._keeper.drop(claim)
            with self._lock:
                self._busy -= claim.kind == "shard"
                self._last_busy = time.monotonic()
            self._wake_if_more()

    def _claim(self) -> tuple[Claim, JobSpec] | tuple[None, None]:
        with self._lock:
            idle = 0.0 if self._busy else time.monotonic() - self._last_busy
        claim = self._ledger.claim(
            self._worker,
            lease=self._settings.lease,
            loaded=self._loaded,
            idle=idle,
            load_time=self._engine.load_seconds,
            models=self._settings.models,
        )
        if claim is None:
            return None, None
        key = (claim.job_id, claim.incarnation)
        if key not in self._specs:
            # A spec holds the whole manifest.
            while len(self._specs) >= _SPECS_KEPT:
                del self._specs[next(iter(self._specs))]
            self._specs[key] = self._ledger.spec(claim.job_id)
        spec = self._specs[key]
        if claim.kind == "shard":
            self._loaded = spec.pipeline
            with self._lock:
                self._busy += 1
        return claim, spec

    def _render(self, claim: Claim, spec: JobSpec) -> dict[str, object]:
        run = ShardRun(
            claim,
            spec,
            ledger=self._ledger,
            keeper=self._keeper,
            engine=self._engine,
            worker=self._worker,
            root=self._root,
            space=self._space,
            stop=self._stop,
        )
        report = run.run()
        log.info(
            "%s: %d rendered, %d adopted, %d failed in %.1f s",
            report.ended,
            report.rendered,
            report.adopted,
            report.failed,
            report.seconds,
        )
        if report.ended == "refused":
            self._loaded = ""
        return asdict(report)

    def _finish(self, claim: Claim, spec: JobSpec) -> dict[str, object]:
        try:
            report = job_report(self._ledger, claim.job_id, spec)
            output = Output(Path(spec.output))
            output.check_within(self._root)
            self._space.write(output, lambda: finish_output(output, report), lambda: self._check_held(claim))
            self._ledger.finish(claim)
        except (LeaseLost, JobError, LedgerUnavailable) as error:
            log.warning("%s", error)
            return {"job": claim.job_id, "ended": "lost"}
        except Stopped:
            self._try(lambda: self._ledger.release(claim))
            return {"job": claim.job_id, "ended": "released"}
        except (OutputError, OSError) as error:
            reason = str(error)
            log.error("this worker cannot finish %s: %s", claim.job_id, reason)
            self._try(lambda: self._ledger.refuse(claim, self._worker, reason))
            return {"job": claim.job_id, "ended": "refused"}
        log.info("finished")
        return {"job": claim.job_id, "ended": "finished"}

    def _check_held(self, claim: Claim) -> None:
        if self._keeper.state(claim) == "lost":
            raise LeaseLost(f"{claim.job_id}: another worker is finishing it")

    def _try(self, give_back: Callable[[], None]) -> None:
        try:
            give_back()
        except LedgerUnavailable as error:
            log.warning("%s: the lease runs out", error)

    def _wake_if_more(self) -> None:
        """A task that ends sends the next wake-up; when it cannot, the keeper's top-up makes good for it."""
        try:
            if self._ledger.waiting(self._worker, self._settings.models):
                self._wake(1)
        except LedgerUnavailable as error:
            log.warning("%s", error)

    def _free_slots(self) -> int:
        with self._lock:
            return max(0, self._settings.task_slots - self._busy)

    def _facts(self) -> dict[str, str | int | float]:
        with self._lock:
            return {
                "pid": os.getpid(),
                "slots": self._settings.task_slots,
                "busy": self._busy,
                "pipeline": self._loaded,
                "images": self._engine.images,
                "notice": self._space.notice,
            }
