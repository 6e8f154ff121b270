"""The ledger as metrics: what a scrape of /metrics finds.

A job that is gone from Redis, and a worker without a heartbeat, have no series: all are made again from the
ledger at each scrape.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, get_args

from prometheus_client.metrics_core import Metric

from jobs.errors import LedgerError
from jobs.ledger.job import JobStatus
from jobs.ledger.overview import Overview
from producer.metrics import families as told
from producer.metrics.samples import Samples
from producer.why_waiting import Facts, Kind, claims_of, has_been_refused, loaded_model, why_it_waits

MOST_JOBS: Final = 250
"""Jobs with series of their own, at most 8 each. Unfinished jobs come first, the oldest before all; then
finished ones, the newest before all."""
MOST_MODELS: Final = 250
"""Models by which the shards of jobs without series of their own are told."""
MOST_WORKERS: Final = 500
"""Workers with series of their own, at most 9 each; and groups of workers by device, model and state."""
STARTING: Final = "starting"
"""Why a job waits that a free worker should take at any moment."""
WHY: Final = (*get_args(Kind), STARTING)
"""Every reason to wait."""
_STATES: Final = ("open", "sealed", "finishing", "finished")
SHARD_STATES: Final = ("waiting", "leased", "paused", "refused", "ending")
"""The states of shards. For the first two, one more worker has something to do."""
_STAGES: Final = ("load", "sample", "decode", "encode", "write")
OTHERS: Final = "(others)"
"""What all jobs without series of their own are told as, so that sums are those of all jobs."""


class LedgerCollector:
    """Makes metrics of the ledger at each scrape; prometheus-client's `Collector`. Threads may share it."""

    def __init__(self, read: Callable[[], Overview]) -> None:
        """`read` reads the ledger; it may raise LedgerError."""
        self._read = read
        self._errors, self._lock = 0, threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """All families. Where Redis cannot be read: that, and how often this was met."""
        samples, began = Samples(), time.perf_counter()
        try:
            seen = self._read()
        except LedgerError:
            # Also where Redis answers and refuses: no figures must not look like nothing to do.
            with self._lock:
                self._errors += 1
            samples.set(told.REDIS_UP, 0)
        else:
            samples.set(told.REDIS_UP, 1)
            _tell_redis(samples, seen)
            _tell_jobs(samples, seen)
            _tell_workers(samples, seen.workers)
        samples.set(told.SCRAPE_ERRORS, self._errors)
        samples.set(told.SCRAPE_SECONDS, time.perf_counter() - began)
        yield from samples.families()


def _tell_redis(samples: Samples, seen: Overview) -> None:
    memory = seen.memory
    if memory.used:
        samples.set(told.REDIS_USED, memory.used)
        samples.set(told.REDIS_MOST, memory.most)
    if memory.policy:
        samples.set(told.REDIS_POLICY, 1, memory.policy)
    if seen.counted is not None:
        samples.set(told.EXPIRIES, seen.counted.lease_expiries)
        samples.set(told.REFUSALS, seen.counted.refusals)


def _tell_jobs(samples: Samples, seen: Overview) -> None:
    samples.declare(told.IMAGES, told.RATE, told.SHARDS, told.REFUSING)
    jobs = [job for job in seen.jobs if isinstance(job, JobStatus)]
    for state in _STATES:
        samples.set(told.JOBS, sum(job.state == state for job in jobs), state)
    samples.set(told.UNREADABLE, len(seen.jobs) - len(jobs))
    unfinished = [job for job in jobs if job.state != "finished"]
    finished = [job for job in reversed(jobs) if job.state == "finished"]
    models: set[str] = set()
    for place, job in enumerate([*unfinished, *finished]):
        label, model = job.job_id, job.model
        if place >= MOST_JOBS:
            label = OTHERS
            model = model if model in models or len(models) < MOST_MODELS else OTHERS
            models.add(model)
        _tell_job(samples, job, label, model, seen.workers)
    samples.set(told.UNLISTED, max(0, len(jobs) - MOST_JOBS), "jobs")
    for why, seconds in oldest_waits(unfinished, seen).items():
        samples.set(told.OLDEST_WAIT, seconds, why)


def _tell_job(samples: Samples, job: JobStatus, label: str, model: str, workers: Mapping[str, Facts]) -> None:
    counts = {"done": job.done, "failed": job.failed, "flagged": job.flagged, "left": job.left}
    for state, count in counts.items():
        samples.add(told.IMAGES, count, label, state)
    if job.state != "finished":
        samples.add(told.RATE, job.images_per_second, label)
        for state, count in _shards(job, workers).items():
            samples.add(told.SHARDS, count, label, model, state)
        samples.add(told.REFUSING, len(job.refusals), label)


def _shards(job: JobStatus, workers: Mapping[str, Facts]) -> Mapping[str, int]:
    """How many shards of an unfinished job are in which state; its finishing counts as one.

    Those that wait or are leased are work for one more worker: neither is what a person paused, nor what each
    worker has refused, also where one tries it again, nor a report alone of what was ended early.
    """
    finishes = job.state == "finishing"
    waiting = job.shards_ready + (finishes and job.shards_leased == 0)
    if finishes and job.ending and not workers:
        return {"ending": waiting, "leased": job.shards_leased}
    if has_been_refused(job, workers):
        return {"refused": waiting + job.shards_leased, "leased": 0}
    paused = job.paused and not job.ending and not finishes
    return {"paused" if paused else "waiting": waiting, "leased": job.shards_leased}


def oldest_waits(jobs: Sequence[JobStatus], seen: Overview) -> Mapping[str, float]:
    """Seconds that the job has waited that waits longest for each reason; 0.0 where none does.

    A job waits since something of it was claimed or rendered last, or since it began to wait.
    """
    oldest = dict.fromkeys(WHY, 0.0)
    for job in jobs:
        wait = why_it_waits(job, seen.workers, full=seen.memory.full)
        if wait is not None:
            why: str = wait.kind
            if why == "no worker" and has_been_refused(job, seen.workers):
                why = "refused"  # one more would refuse it, too
        elif not job.workers and (job.shards_ready or job.state == "finishing"):
            why = STARTING
        else:
            continue
        oldest[why] = max(oldest[why], seen.now - job.last_moved)
    return oldest


def _tell_workers(samples: Samples, workers: Mapping[str, Facts]) -> None:
    samples.declare(told.WORKERS, told.STAGES, told.RENDERED)
    groups: set[tuple[str, ...]] = set()
    for facts in workers.values():
        group = (facts.get("device", ""), loaded_model(facts), worker_state(facts))
        if group not in groups and len(groups) >= MOST_WORKERS:
            group = (OTHERS, OTHERS, worker_state(facts))
        groups.add(group)
        samples.add(told.WORKERS, 1, *group)
    for name, facts in list(workers.items())[:MOST_WORKERS]:
        _tell_worker(samples, name, facts)
    samples.set(told.UNLISTED, max(0, len(workers) - MOST_WORKERS), "workers")


def _tell_worker(samples: Samples, name: str, facts: Facts) -> None:
    """What a worker tells; earlier versions tell less, and that is left out."""
    figures = [
        (told.RENDERED, "images", ()),
        *((told.STAGES, f"{stage}_seconds", (stage,)) for stage in _STAGES),
        (told.GPU_USED, "gpu_memory_used", ()),
        (told.GPU_SIZE, "gpu_memory_total", ()),
        (told.GPU_BUSY, "gpu_utilisation", ()),
    ]
    for family, fact, labels in figures:
        figure = _figure(facts.get(fact, ""))
        if figure is not None:
            samples.set(family, figure, name, *labels)


def worker_state(facts: Facts) -> str:
    """What a worker does: stuck, loading, waiting, busy or idle."""
    for fact, state in (("stuck", "stuck"), ("loading", "loading"), ("notice", "waiting")):
        if facts.get(fact):
            return state
    return "busy" if claims_of(facts) or facts.get("busy", "0") not in ("", "0") else "idle"


def _figure(text: str) -> float | None:
    """A figure that is told; None for none, and for one that no worker tells."""
    try:
        figure = float(text)
    except ValueError:
        return None
    return figure if 0 <= figure < float("inf") else None
