"""What many waiting jobs cost: Redis' CPU for a claim and for a job, and the CPU of `imagemill status`.

    python benchmarks/control_plane.py [--toy | --full]

A Redis of its own holds 2,000 jobs of ten pictures that wait, of ten priorities, and then 10,000. Shards are
claimed one after the other; Redis says how much CPU it used. `status` is a process as a user starts it, the
least of three. Then one worker with the stand-in model `instant` finishes some of the jobs while the others
wait; Redis' CPU is all that it used meanwhile, for tasks and events, too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.progress import track
from sizes import parse_sized
from timed_farm import TimedFarm, seconds_until, timed_farm

from jobs.ledger.job import Addition, Claim, NewShard, WorkerState
from jobs.ledger.redis_keys import ACTIVE, QUEUE

PICTURES, PRIORITIES = 10, 10
LEASE = 30.0
SERIES = 9


def fill(here: TimedFarm, first: int, end: int, *, outputs: bool) -> None:
    """Stores the jobs of these numbers, each a copy of one but for its name, output and priority.

    `outputs`: so that a worker can render them.
    """
    template = here.submit(f"template-{first}", [f"picture {n}" for n in range(PICTURES)], model="instant")
    spec, [blob] = here.ledger.spec(template), here.ledger.shard_blobs(template)
    here.ledger.control(template, "cancel")
    for number in track(range(first, end), "jobs", disable=not sys.stderr.isatty()):
        output = here.folder / f"k{number:05d}"
        if outputs:
            shutil.copytree(spec.output, output)
        one = replace(spec, name=output.name, output=str(output), priority=number % PRIORITIES)
        job_id, _created = here.ledger.create(one, "digest", 1)
        shards = [NewShard(0, PICTURES, blob)]
        here.ledger.add(
            job_id,
            here.ledger.incarnation(job_id),
            Addition(cursor=0, new_cursor=PICTURES, seal=True, shards=shards),
        )
    here.client.delete(QUEUE)


def claims(here: TimedFarm, count: int) -> float:
    """Redis' milliseconds of CPU for a claim: the median of the means of some series of so many."""
    # The first writes the list of what may be claimed.
    here.ledger.release(claim(here))
    means = []
    for _ in range(SERIES):
        before = redis_cpu(here)
        held = [claim(here) for _ in range(count)]
        means.append((redis_cpu(here) - before) * 1000 / count)
        for found in held:
            here.ledger.release(found)
    return median(means)


def claim(here: TimedFarm) -> Claim:
    """The next shard, for a worker that holds no model."""
    found = here.ledger.claim("w", WorkerState(), lease=LEASE)
    if found is None:
        raise SystemExit("there is nothing to claim")
    return found


def status_cpu(here: TimedFarm, jobs: int) -> float:
    """Seconds of CPU of `imagemill status --json`, from its start to its end."""
    before = child_cpu()
    shown = subprocess.run(
        [Path(sys.executable).parent / "imagemill", "status", "--json"],
        env={**os.environ, "IMAGEMILL_REDIS_URL": here.url},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    if len(json.loads(shown)["jobs"]) < jobs:
        raise SystemExit(f"status shows {len(json.loads(shown)['jobs'])} jobs of {jobs}")
    return child_cpu() - before


def child_cpu() -> float:
    """Seconds of CPU of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def redis_cpu_of_jobs(here: TimedFarm, count: int) -> float:
    """Redis' milliseconds of CPU for a job, while a worker finishes at least so many and the others wait."""
    waiting = here.client.zcard(ACTIVE)
    worker = here.start_worker()
    seconds_until(lambda: here.client.zcard(ACTIVE) < waiting)
    left, before = here.client.zcard(ACTIVE), redis_cpu(here)
    seconds_until(lambda: here.client.zcard(ACTIVE) <= left - count, deadline=300.0)
    finished, used = left - here.client.zcard(ACTIVE), redis_cpu(here) - before
    here.stop_worker(worker)
    return used * 1000 / finished


def redis_cpu(here: TimedFarm) -> float:
    """Seconds of CPU that Redis has used."""
    used = here.client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(
        parser,
        jobs=(20, 2_000, 2_000),
        more_jobs=(40, 10_000, 10_000),
        claims=(10, 100, 200),
        done=(3, 100, 400),
    )
    with tempfile.TemporaryDirectory() as name, timed_farm(Path(name), lease=LEASE) as here:
        fill(here, 0, options.jobs, outputs=True)
        few, cpu = claims(here, options.claims), min(status_cpu(here, options.jobs) for _ in range(3))
        of_job = redis_cpu_of_jobs(here, options.done)
        fill(here, options.jobs, options.more_jobs, outputs=False)
        figures = {
            "claim_ms": few,
            "claim_ms_10000": claims(here, options.claims),
            "status_cpu_s": cpu,
            "redis_cpu_ms_per_job": of_job,
        }
    result = {name: round(value, 3) for name, value in figures.items()}
    print(f"{options.jobs} jobs of {PICTURES} pictures wait, then {options.more_jobs}")
    for name, value in result.items():
        print(f"{name:<22}{value:>8}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
