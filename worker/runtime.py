"""What one worker process holds: its ledger, its engine, its heartbeat; and what a wake-up makes it do."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.errors import JobError, LedgerError, LedgerUnavailable
from jobs.failpoints import failpoint
from jobs.ledger.job import Claim, JobSpec, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.location import names_bucket
from jobs.settings import Settings
from worker.engine.engine import Engine
from worker.engine.pulse import Pulse
from worker.engine.renderer import Pipeline
from worker.engine.stall_watch import StallWatch
from worker.finish.finish_run import FinishRun
from worker.gpu_use import GpuUse
from worker.lease.beat import Beat
from worker.lease.disk_space import DiskSpace
from worker.lease.heartbeat import Heartbeat
from worker.lease.lease import Lease, Work
from worker.lease.old_spools import OldSpools
from worker.lease.repeated import Repeated
from worker.lease.writers import Writers
from worker.logs import bound
from worker.own_memory import memory_facts
from worker.renderers.load_renderer import load_renderer
from worker.renderers.loading import Loading
from worker.shard.shard_run import ShardRun
from worker.shard.workplace import Workplace
from worker.stage_seconds import SPENT

log = logging.getLogger(__name__)


class Runtime:
    """One worker process: task threads call `serve`, which claims and renders; one engine serves them all."""

    def __init__(self, settings: Settings, url: str, worker: str, wake: Callable[[int], None]) -> None:
        """`wake` sends wake-ups; nothing is started or connected yet."""
        self._settings, self._worker, self._wake = settings, worker, wake
        self._ledger = Ledger(url)
        self._root = _root(settings)
        self._stop = threading.Event()
        self._space = DiskSpace(int(settings.min_free_disk), self._stop)
        self._pulse = Pulse()
        self._loading = Loading(self._pulse.beat)
        self._stalls = StallWatch(self._pulse, settings.stall_limit, self._wants)
        self._beat = Beat(settings, worker)
        self._gpu = GpuUse()
        self._heartbeat = Heartbeat(
            self._ledger,
            worker,
            lease=settings.lease,
            models=settings.models,
            facts=self.facts,
            top_up=lambda waiting: wake(min(waiting, self._free_slots())),
            consumer_stopped=self._end_without_consumer,
            went_round=self._beat.touch,
        )
        self._engine = Engine(
            lambda pipeline: load_renderer(pipeline, settings, self._loading),
            on_taken=self._heartbeat.images_entered,
            pulse=self._pulse,
        )
        self._writers = Writers(self._ledger, lease=settings.lease)
        self._old_spools = OldSpools(self._ledger, self._stop, every=settings.lease)
        self._workplace = Workplace(self._engine, self._root, self._space, settings)
        self._lock = threading.Lock()
        self._claiming = threading.Lock()
        self._repeated = Repeated()
        self._held: dict[Claim, JobSpec] = {}
        self._process = secrets.token_hex(4)
        self._loaded = ""
        self._last_busy = time.monotonic()
        # By incarnation too: a job that is submitted again after a wipe has its old id.
        self._spec = lru_cache(64)(lambda job_id, _incarnation: self._ledger.spec(job_id))

    def begin(self) -> None:
        """Keeps the file for health checks young until the heartbeat does: Redis may be away till then."""
        self._beat.begin()

    def start(self) -> None:
        """Starts the engine and the heartbeat."""
        self._engine.start()
        self._stalls.start()
        try:
            self._ledger.forget_refusals(self._worker)
        except LedgerError as error:
            log.warning("%s", error)
        self._gpu.start()
        self._heartbeat.start()
        self._old_spools.start()

    def stop(self) -> None:
        """Makes every task give its shard back, and the engine stop after its current step."""
        self._stop.set()
        self._stalls.stop()
        self._engine.stop()

    def wait(self) -> None:
        """Waits until the engine has left its micro-batch; after `stop`."""
        self._engine.wait()

    def close(self) -> None:
        """Waits for engine and heartbeat to end; after the tasks have."""
        self._engine.close()
        self._heartbeat.stop()
        self._gpu.stop()
        self._beat.end()

    def serve(self, announce: Callable[[str, str], None]) -> dict[str, Any] | None:
        """Claims the next shard or finishing and does it; says what was done, None when there was nothing.

        Claims nothing while the engine is stuck: it would only be held. `announce(job_id, shard)` is called
        once the claim is known.
        """
        self._heartbeat.woken()
        if self._stop.is_set() or self._stalls.stall is not None:
            return None
        try:
            with self._claiming:
                claim, spec = self._claim()
        except (LedgerError, JobError) as error:
            if (count := self._repeated.to_say("claims", error)) is not None:
                log.warning("%s; the heartbeat wakes this worker again%s", error, count)
            return None
        self._repeated.over("claims")
        if claim is None or spec is None:
            return None
        failpoint("claimed")
        self._heartbeat.hold(claim)
        lease = Lease(
            claim,
            ledger=self._ledger,
            heartbeat=self._heartbeat,
            worker=self._worker,
            stop=self._stop,
            held_up=lambda: claim.kind == "shard" and self._is_held_up(spec),
            writing=self._writers.of(claim, spec.output),
        )
        try:
            with bound(job=claim.job_id, shard=int(claim.shard) if claim.kind == "shard" else None):
                announce(claim.job_id, claim.shard)
                report = lease.carry_out(self._work(lease, spec))
                log.info("%s", _in_words(report))
            if report["ended"] == "refused":
                self._loaded = ""
            return report
        finally:
            self._heartbeat.drop(claim)
            self._writers.drop(claim)
            with self._lock:
                del self._held[claim]
                self._last_busy = time.monotonic()
            self._wake_if_more()

    def facts(self) -> dict[str, str | int | float]:
        """What the heartbeat carries: `imagemill status` shows it."""
        with self._lock:
            stuck = self._stalls.notice
            claims = [(claim.job_id, claim.shard, spec.priority) for claim, spec in self._held.items()]
            return {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process": self._process,
                "models": json.dumps(self._settings.models),
                "claims": json.dumps(claims),
                "slots": self._settings.concurrency,
                "busy": self._shards(),
                "pipeline": self._loaded,
                "images": self._engine.images,
                # Workers of earlier versions knew of notices alone, and so do those who look at them.
                "notice": "; ".join(filter(None, (self._space.notice, stuck))),
                "stuck": stuck,
                "loading": self._loading.text,
                "device": self._engine.device,
                "batch_size": self._engine.slots,
                **{f"{stage}_seconds": round(spent, 3) for stage, spent in SPENT.totals().items()},
                **self._gpu.facts(),
                **memory_facts(),
            }

    def _work(self, lease: Lease, spec: JobSpec) -> Work:
        if lease.claim.kind == "finish":
            return FinishRun(lease, spec, root=self._root, space=self._space)
        return ShardRun(lease, spec, self._workplace)

    def _claim(self) -> tuple[Claim, JobSpec] | tuple[None, None]:
        with self._lock:
            idle = 0.0 if self._shards() else time.monotonic() - self._last_busy
        state = WorkerState(
            loaded=self._loaded,
            idle_ms=int(idle * 1000),
            load_ms=int(self._engine.load_seconds * 1000),
            models=self._settings.models,
        )
        claim = self._ledger.claim(self._worker, state, lease=self._settings.lease)
        if claim is None:
            return None, None
        try:
            spec = self._spec(claim.job_id, claim.incarnation)
        except (LedgerUnavailable, JobError):
            self._ledger.release(claim)
            raise
        except LedgerError as error:
            self._ledger.refuse(claim, self._worker, str(error))
            raise
        with self._lock:
            self._held[claim] = spec
            if claim.kind == "shard":
                self._loaded = spec.pipeline
        return claim, spec

    def _wake_if_more(self) -> None:
        """A task that ends sends the next wake-up; when it cannot, the heartbeat's top-up does."""
        try:
            if self._ledger.waiting(self._worker, self._settings.models, enough=1):
                self._wake(1)
        except LedgerError as error:
            log.warning("%s", error)

    def _free_slots(self) -> int:
        with self._lock:
            free = self._settings.concurrency - self._shards()
        return 0 if self._stalls.stall is not None else max(0, free)

    def _end_without_consumer(self) -> None:
        """Ends this process, which holds nothing: Celery's consumer takes no message, and says not why."""
        if not self._stop.is_set():
            log.critical(
                "Celery's consumer takes no wake-up though some wait, with work for this worker: this "
                "process ends, to be started again"
            )
            os._exit(70)

    def _wants(self, pipeline: Pipeline) -> bool:
        """Whether a shard that this process holds needs a pipeline, or a finishing is being written."""
        with self._lock:
            held = list(self._held.items())
        # A finishing goes on beside an engine that is stuck: the end of the process would cut it off.
        return any(claim.kind == "finish" or _needs(spec, pipeline) for claim, spec in held)

    def _is_held_up(self, spec: JobSpec) -> bool:
        """Whether the engine is stuck in another job's pipeline."""
        stall = self._stalls.stall
        return stall is not None and not _needs(spec, stall.pipeline)

    def _shards(self) -> int:
        """How many shards this process holds."""
        return sum(claim.kind == "shard" for claim in self._held)


def _needs(spec: JobSpec, pipeline: Pipeline) -> bool:
    further = [(one.role, one.model, one.revision) for one in pipeline.further]
    own = (pipeline.model, pipeline.revision, pipeline.precision)
    return own == (spec.model, spec.revision, spec.precision) and further == [
        *map(tuple, spec.further_models)
    ]


def _in_words(report: dict[str, Any]) -> str:
    """A report as a log line: `committed: 5 rendered, 3 adopted, 0 failed, 2.1 seconds`."""
    names = ("rendered", "adopted", "failed", "seconds")
    figures = [f"{report[name]} {name}" for name in names if name in report]
    return f"{report['ended']}: {', '.join(figures)}" if figures else report["ended"]


def _root(settings: Settings) -> str:
    """The folder or the place in a bucket that outputs must lie below."""
    root = settings.output_root
    if root is not None and names_bucket(root):
        return root
    return str((Path.cwd() if root is None else Path(root)).resolve())
