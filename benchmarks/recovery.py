"""How long a worker's death, an outage of Redis and a SIGTERM hold a job up.

    python benchmarks/recovery.py [--toy | --full]

Real workers with the stand-in model `instant`, half a second a micro-batch of 8 images, against a Redis of
their own. In each try

- takeover: a worker in the middle of a shard loses its Celery process by SIGKILL while another is idle;
  seconds until another attempt has claimed it (`--lease`: with --full a worker's default);
- outage: Redis is killed while two workers render, and started again on its files 1 s to
  --longest-outage later; seconds from its first answer until an image is recorded, and until each worker has
  claimed another shard. No worker's process ends of it;
- sigterm: a worker in the middle of a shard gets SIGTERM while another is idle; seconds until
  `imagemill-worker` has ended, and until the other has claimed the shard. No image is rendered twice.

Ledger and output of each job are compared when it has finished. The last line is JSON; the exit status is 1
when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track
from sizes import parse_sized
from timed_farm import Lease, TimedFarm, seconds_until, timed_farm

from jobs.errors import LedgerUnavailable
from jobs.lifeline import start_tied_program
from jobs.settings import Settings
from producer.embedded_redis import find_binary

BATCH_SECONDS, BATCH = 0.5, 8
"""A micro-batch's seconds and images; 16 slots, two an image."""
LONG_SHARD = 96
"""Images of a shard that is still being rendered when something happens to it: six seconds."""
SHORT_SHARD = 16
"""Images of a shard of the jobs that meet an outage."""
SHORTEST_OUTAGE = 1.0
"""Seconds; the tries are spread evenly between it and --longest-outage."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one kind over all tries, and what they may be."""

    what: str
    seconds: Sequence[float]
    judged: str
    """The figure that is held to the bound: p95 or max."""
    bound: float

    def figures(self) -> dict[str, Any]:
        """n, p50, p95 (nearest rank), max, the bound, and whether it is kept."""
        ordered = sorted(self.seconds)
        found = {
            "p50": statistics.median(ordered),
            "p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
            "max": ordered[-1],
        }
        kept = found[self.judged] <= self.bound
        rounded = {name: round(value, 2) for name, value in found.items()}
        return {"n": len(ordered), **rounded, "bound": f"{self.judged} <= {self.bound:g}", "ok": kept}


def tries(count: int, what: str) -> Iterable[int]:
    """0 to count - 1, with a bar on a terminal."""
    return track(range(count), what, disable=not sys.stderr.isatty())


def start_job(here: TimedFarm, name: str, shards: int, shard_size: int) -> str:
    """Submits so many full shards; returns the job's id."""
    prompts = [f"picture {n} of {name}" for n in range(shards * shard_size)]
    return here.submit(name, prompts, model="instant", shard_size=shard_size)


def relay(here: TimedFarm, name: str, count: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Each time: a worker in the middle of a job's only shard, and whether another attempt has claimed that.

    A second worker is idle. The caller makes the first one leave; then the job is checked at its end, and
    a new worker takes the place of the one that left.
    """
    here.start_worker()
    for number in tries(count, name):
        here.start_worker()
        job_id = start_job(here, f"{name}-{number}", 1, LONG_SHARD)
        seconds_until(lambda job_id=job_id: here.ledger.status(job_id).done >= BATCH)
        [held] = here.leases(job_id).values()
        yield held.worker, partial(moved, here, job_id, held)
        here.finished(job_id)
        here.check_exact(job_id, LONG_SHARD)
        here.stop_worker(held.worker)


def moved(here: TimedFarm, job_id: str, held: Lease) -> bool:
    """Whether another attempt holds the only shard now."""
    return any(lease.attempt != held.attempt for lease in here.leases(job_id).values())


def takeover(folder: Path, count: int, lease: float) -> list[Measured]:
    """A Celery process is killed in mid-shard."""
    seconds = []
    with timed_farm(folder, lease=lease, instant_seconds=BATCH_SECONDS, batch_size=2 * BATCH) as here:
        for worker, have_moved in relay(here, "takeover", count):
            here.celery(worker).kill()
            seconds += seconds_until(have_moved)
    return [Measured("kill_to_claim", seconds, "p95", lease + min(1.0, lease / 3) + 2)]


def sigterm(folder: Path, count: int, lease: float) -> list[Measured]:
    """A worker gets SIGTERM in mid-shard."""
    exits, moves = [], []
    with timed_farm(folder, lease=lease, instant_seconds=BATCH_SECONDS, batch_size=2 * BATCH) as here:
        for worker, have_moved in relay(here, "sigterm", count):
            process = here.workers[worker]
            process.terminate()
            ended, taken = seconds_until(lambda process=process: process.poll() is not None, have_moved)
            exits.append(ended)
            moves.append(taken)
        rendered = sum(map(int, re.findall(r"(\d+) rendered", here.logs())))
    if rendered != count * LONG_SHARD:
        raise SystemExit(f"{rendered} images were rendered for {count * LONG_SHARD}")
    bound = BATCH_SECONDS + 2
    return [
        Measured("sigterm_to_exit", exits, "max", bound),
        Measured("sigterm_to_claim", moves, "max", bound),
    ]


def outage(folder: Path, count: int, lease: float, longest: float) -> list[Measured]:
    """Redis is killed under two workers and comes back."""
    seconds = []
    # A second of work each: the job outlasts the outage even where one worker comes back late.
    shards = max(20, round(2 * longest))
    with (
        ExitStack() as started,
        timed_farm(folder, lease=lease, instant_seconds=BATCH_SECONDS, batch_size=2 * BATCH) as here,
    ):
        workers = {here.start_worker(), here.start_worker()}
        processes = {here.celery(worker).pid for worker in workers}
        for number in tries(count, "outage"):
            job_id = start_job(here, f"outage-{number}", shards, SHORT_SHARD)
            seconds_until(lambda job_id=job_id: here.ledger.status(job_id).done >= 4 * SHORT_SHARD)
            os.kill(here.client.info("server")["process_id"], signal.SIGKILL)
            time.sleep(SHORTEST_OUTAGE + (longest - SHORTEST_OUTAGE) * number / max(1, count - 1))
            started.enter_context(redis_again(here))
            seconds.append(until_back(here, job_id, workers))
            here.finished(job_id)
            here.check_exact(job_id, shards * SHORT_SHARD)
        if {here.celery(worker).pid for worker in workers} != processes:
            raise SystemExit("a worker's process died of an outage")
    images, claims = zip(*seconds, strict=True)
    return [Measured("redis_to_image", images, "max", 30.0), Measured("redis_to_claims", claims, "max", 30.0)]


def until_back(here: TimedFarm, job_id: str, workers: set[str]) -> list[float]:
    """Seconds from now until an image is recorded, and until each worker holds a shard claimed since."""
    now, done = time.time(), here.ledger.status(job_id).done

    def claimed() -> bool:
        leases = here.leases(job_id).values()
        return {lease.worker for lease in leases if lease.claimed >= now} == workers

    return seconds_until(lambda: here.ledger.status(job_id).done > done, claimed)


@contextmanager
def redis_again(here: TimedFarm) -> Iterator[None]:
    """Starts the killed Redis on its folder, with its port and password, and waits until it answers."""
    with (here.folder / "redis-again.log").open("ab") as log:
        command = [str(find_binary()), "redis.conf"]
        process = start_tied_program(command, stdout=log, stderr=log, cwd=here.folder / "redis")

    def answers() -> bool:
        try:
            here.ledger.ping()
        except LedgerUnavailable:
            return False
        return True

    seconds_until(answers)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lease = float(Settings.model_fields["lease"].default)
    options = parse_sized(parser, tries=(1, 3, 20), lease=(1.0, 3.0, lease), longest_outage=(1.0, 5.0, 20.0))
    print(
        f"a lease of {options.lease:g} s, renewed each {min(1.0, options.lease / 3):g} s; "
        f"{BATCH_SECONDS:g} s a micro-batch"
    )
    print(f"{'seconds':<18}{'n':>4}{'p50':>8}{'p95':>8}{'max':>8}  {'bound':<14}ok")
    found: dict[str, dict[str, Any]] = {}
    for block in (sigterm, partial(outage, longest=options.longest_outage), takeover):
        with tempfile.TemporaryDirectory() as name:
            measured = {one.what: one.figures() for one in block(Path(name), options.tries, options.lease)}
        for what, figures in measured.items():
            print(
                f"{what:<18}{figures['n']:>4}{figures['p50']:>8.2f}{figures['p95']:>8.2f}{figures['max']:>8.2f}"
                f"  {figures['bound']:<14}{'yes' if figures['ok'] else 'NO'}",
                flush=True,
            )
        found |= measured
    print(json.dumps({"lease": options.lease, "exact": True, **found}))
    sys.exit(0 if all(figures["ok"] for figures in found.values()) else 1)


if __name__ == "__main__":
    main()
