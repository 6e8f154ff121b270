"""Whether a worker's memory, descriptors and Redis stay where they are through thousands of images.

    python benchmarks/long_run.py [--model shapes] [--toy | --full]

One real worker renders one job after another: files and tars, PNG and JPEG, pictures of two sizes, four
samplers, with columns and without. Each second the Celery process is asked for its memory (RSS, and USS:
what it alone holds), descriptors and threads, Redis for its used_memory and keys. The first fifth of the
images is the warm-up. Each job leaves Redis seconds after it has finished; at the end no key of a job may
be there, and no key without a TTL but those that `redis_keys` gives a reason for. The last line is JSON;
the exit status is 1 when something grew or stayed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress
from sizes import parse_sized
from timed_farm import TimedFarm, seconds_until, timed_farm

from jobs.ledger import redis_keys

MEGABYTE = 1 << 20
WARM_UP = 0.2
"""The share of the images that is not looked at."""
SWING = 0.05
"""How far the median RSS of a later tenth may be from that of the first tenth after the warm-up."""
FEW = 4
"""More descriptors or threads than these are a leak: one a job would be at least 14 more, and a pool of
connections may grow by some when many ask at once."""
RETENTION = 3
"""Seconds that a finished job stays in Redis."""
KINDS: tuple[dict[str, Any], ...] = (
    {"layout": "files", "image_format": "png"},
    {"layout": "files", "image_format": "jpeg", "columns": True},
    {"layout": "webdataset", "image_format": "jpeg"},
    {"layout": "webdataset", "image_format": "png", "columns": True},
)
SCHEDULERS = ("DDIM", "Euler", "DPM++ 2M", "Euler a")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the worker's Celery process and at Redis; memory in bytes."""

    images: int
    rss: int
    uss: int
    fds: int
    threads: int
    used_memory: int
    keys: int


def look(here: TimedFarm, process: psutil.Process, images: int) -> Sample:
    """Asks both now."""
    memory = process.memory_full_info()
    used, keys = here.client.info("memory")["used_memory"], here.client.dbsize()
    return Sample(images, memory.rss, memory.uss, process.num_fds(), process.num_threads(), used, keys)


def prompts(number: int, images: int, columns: bool) -> list[dict[str, object]]:
    """A job's prompts, a quarter of them of another size; none occurs in another job."""
    colours, shapes = ("red", "green", "blue", "yellow"), ("circle", "star", "square", "heart")
    lines: list[dict[str, object]] = []
    for n in range(images):
        text = f"a {colours[n % 4]} {shapes[n // 4 % 4]}, number {n} of job {number}"
        line: dict[str, object] = {"prompt": text}
        if n % 4 == 0:
            line |= {"height": 96}
        if columns:
            line |= {"id": f"{number}-{n}", "columns": {"n": n, "colour": colours[n % 4]}}
        lines.append(line)
    return lines


def render(here: TimedFarm, options: argparse.Namespace) -> list[Sample]:
    """Renders the jobs one after another and samples meanwhile; each is checked when it has finished."""
    process = here.celery(here.start_worker())
    samples, before, size = [], 0, options.images // options.jobs
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("images", total=size * options.jobs)
        for number in range(options.jobs):
            kind = dict(KINDS[number % len(KINDS)])
            lines = prompts(number, size, kind.pop("columns", False))
            settings = {
                "height": 64,
                "width": 64,
                "num_inference_steps": 8,
                "guidance_scale": 3,
                "scheduler": SCHEDULERS[number % len(SCHEDULERS)],
            }
            job_id = here.submit(
                f"long-{number}", lines, model=options.model, settings=settings, retention=RETENTION, **kind
            )
            while (status := here.ledger.status(job_id)).state != "finished":
                samples.append(look(here, process, before + status.done + status.failed))
                bar.update(task, completed=samples[-1].images)
                time.sleep(1)
            here.check_exact(job_id, size)
            before += size
    return samples


def stay(here: TimedFarm) -> dict[str, str]:
    """Keys without a TTL once the jobs have left, and why: key -> what `redis_keys` says, or ""."""
    reasons = {
        line.split()[0]: line.partition("none: ")[2]
        for line in (redis_keys.__doc__ or "").splitlines()
        if line.startswith(redis_keys.PREFIX) and "none: " in line
    }
    seconds_until(lambda: not here.client.keys(f"{redis_keys.PREFIX}job:*"), deadline=RETENTION + 10)
    keys = sorted(key.decode() for key in here.client.keys(f"{redis_keys.PREFIX}*"))
    return {key: reasons.get(key, "") for key in keys if here.client.ttl(key) == -1}


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("shapes", "instant"), default="shapes")
    options = parse_sized(parser, images=(200, 1_000, 5_000), jobs=(4, 8, 20))
    if options.images % options.jobs:
        parser.error(f"--images {options.images}: must be a multiple of --jobs, {options.jobs}")
    with tempfile.TemporaryDirectory() as name, timed_farm(Path(name), batch_size=16) as here:
        samples = render(here, options)
        staying = stay(here)
    tenths = [
        list(part) for _, part in groupby(samples, lambda sample: sample.images * 10 // (options.images + 1))
    ]
    print(f"{'images':>8}{'RSS MB':>9}{'USS MB':>9}{'fds':>6}{'threads':>9}{'Redis MB':>10}{'keys':>6}")
    for part in tenths:
        rss, uss, used = (middle(part, field) / MEGABYTE for field in ("rss", "uss", "used_memory"))
        fds, threads, keys = (middle(part, field) for field in ("fds", "threads", "keys"))
        print(f"{part[-1].images:>8}{rss:>9.1f}{uss:>9.1f}{fds:>6}{threads:>9}{used:>10.2f}{keys:>6}")
    for key, reason in staying.items():
        print(f"stays: {key} ({reason or 'no reason is given'})")
    warm = [part for part in tenths if part[0].images >= WARM_UP * options.images]
    if len(warm) < 2:
        raise SystemExit("the run was too short to be looked at each second: take more --images")
    first, last = warm[0], warm[-1]
    start = middle(first, "rss")
    farthest = max((middle(part, "rss") / start for part in warm), key=lambda ratio: abs(ratio - 1))
    result = {
        "images": options.images,
        "rss_ratio": round(farthest, 3),
        "rss_peak": round(max(sample.rss for part in warm for sample in part) / start, 3),
        "fds_first": middle(first, "fds"),
        "fds_last": middle(last, "fds"),
        "threads_first": middle(first, "threads"),
        "threads_last": middle(last, "threads"),
        "keys_left_without_ttl": [key for key, reason in staying.items() if not reason],
        "redis_ratio": round(middle(last, "used_memory") / middle(first, "used_memory"), 3),
    }
    print(json.dumps(result))
    more = max(result[f"{what}_last"] - result[f"{what}_first"] for what in ("fds", "threads"))
    flat = abs(farthest - 1) <= SWING and more <= FEW and not result["keys_left_without_ttl"]
    sys.exit(0 if flat else 1)


def middle(samples: list[Sample], field: str) -> int:
    """The median of what the samples have there, one that was seen."""
    return statistics.median_low(getattr(sample, field) for sample in samples)


if __name__ == "__main__":
    main()
