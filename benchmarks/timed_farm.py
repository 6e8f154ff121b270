"""A folder, a Redis and real workers, for the benchmarks that break them or watch them for long.

`tests/farm.py` is the tests' own. This one measures: a wait returns its seconds and ends by a deadline, a
check ends the benchmark with a sentence, every job has an output of its own, and workers end with the
benchmark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.ledger.redis_keys import job as job_key
from jobs.lifeline import start_tied
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest

POLL = 0.02
"""Seconds between two looks: how exact a time is."""


def seconds_until(*conditions: Callable[[], object], deadline: float = 120.0) -> list[float]:
    """Polls until every condition has held; for each, the seconds from now until it first did.

    Raises SystemExit when one has not within `deadline` seconds.
    """
    began, took = time.monotonic(), dict[int, float]()
    while len(took) < len(conditions):
        for number, holds in enumerate(conditions):
            if number not in took and holds():
                took[number] = time.monotonic() - began
        if time.monotonic() - began > deadline:
            missing = [number for number in range(len(conditions)) if number not in took]
            raise SystemExit(f"waited {deadline:g} s in vain for condition {missing} of {conditions}")
        time.sleep(POLL)
    return [took[number] for number in range(len(conditions))]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a shard."""

    attempt: str
    worker: str
    """Its name."""
    claimed: float
    """When, in seconds since 1970 by Redis' clock."""


class TimedFarm:
    """Any number of workers and the jobs that they render; logs and outputs lie in the folder."""

    def __init__(self, folder: Path, server: EmbeddedRedis, **settings: object) -> None:
        """`settings` are the workers', besides those of the farm, as `jobs.settings` names them."""
        own = {"redis_url": server.url, "output_root": folder, "runtime_dir": folder, "torch_threads": 1}
        variables = {f"IMAGEMILL_{name.upper()}": str(value) for name, value in (own | settings).items()}
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        self.folder, self.url = folder, server.url
        self.ledger, self.client = Ledger(server.url), redis.Redis.from_url(server.url)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def start_worker(self) -> str:
        """Starts `imagemill-worker` and waits until it is ready; returns its name. Its log is NAME.log."""
        name = f"w{len(self.workers)}"
        command = [str(Path(sys.executable).parent / "imagemill-worker"), "--gpus", "none", "--name", name]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.workers[name] = start_tied(command, env=self._environment, stdout=log, stderr=log)
        seconds_until(lambda: any(worker.endswith(f"@{name}") for worker in self.ledger.workers()))
        return name

    def celery(self, name: str) -> psutil.Process:
        """The process that renders, under the worker's supervisor."""
        [process] = psutil.Process(self.workers[name].pid).children()
        return process

    def stop_worker(self, name: str) -> None:
        """Ends a worker in good order."""
        self.workers[name].terminate()
        self.workers[name].wait()

    def logs(self) -> str:
        """What all workers have logged."""
        return "".join((self.folder / f"{name}.log").read_text(encoding="utf-8") for name in self.workers)

    def submit(self, name: str, prompts: Sequence[str | dict[str, object]], **keys: object) -> str:
        """Submits a job of 64x64 pictures to an output of its own, NAME; returns its id."""
        manifest = {
            "name": name,
            "output": str(self.folder / name),
            "settings": {"height": 64, "width": 64},
            "prompts": prompts,
        } | keys
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
        return submit_manifest(prepare(file, Settings()), JobQueue.at(self.url)).job_id

    def leases(self, job_id: str) -> dict[str, Lease]:
        """What is claimed of a job: shard -> lease."""
        held = self.client.hgetall(job_key(job_id, "leased"))
        leases = {shard.decode(): json.loads(lease) for shard, lease in held.items()}
        return {
            shard: Lease(lease["a"], lease["w"].partition("@")[2], lease["t"] / 1000)
            for shard, lease in leases.items()
        }

    def finished(self, job_id: str, deadline: float = 600.0) -> JobStatus:
        """Waits for the end of a job."""
        seconds_until(lambda: self.ledger.status(job_id).state == "finished", deadline=deadline)
        return self.ledger.status(job_id)

    def check_exact(self, job_id: str, images: int) -> None:
        """Raises SystemExit unless ledger and output have so many images, each once, and no failure."""
        status = self.ledger.status(job_id)
        output = Output.at(status.output)
        records = [record for shard in output.shards() for record in output.records(shard)]
        found = {
            "done": status.done,
            "bits": self.ledger.done_bits(job_id).count(),
            "records": len(records),
            "image_ids": len({record["image_id"] for record in records}),
            "pictures": len(output.held_image_ids()),
        }
        bad = {"failed": status.failed, "failures": len(output.failures())}
        if set(found.values()) != {images} or set(bad.values()) != {0} or status.left:
            raise SystemExit(f"{job_id} is not exact, {images} images and no failure: {found | bad}")


@contextmanager
def timed_farm(folder: Path, **settings: Any) -> Iterator[TimedFarm]:
    """A farm without workers yet; ends all that it started."""
    with EmbeddedRedis(folder / "redis") as server:
        made = TimedFarm(folder, server, **settings)
        try:
            yield made
        finally:
            for process in made.workers.values():
                process.terminate()
            for process in made.workers.values():
                process.wait()
