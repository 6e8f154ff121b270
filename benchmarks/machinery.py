"""The machinery alone: thousands of images by a model that costs nothing, through real Redis and Celery.

    python benchmarks/machinery.py [--toy | --full]

Workers paint 64x64 pictures with the stand-in model `instant`, and everything else is real: submitting,
claims, PNG, metadata, fsync, commits, the finishing. Flower runs as well, and its API is asked every second.
Counted at the end: what the ledger says, the files, the different image_ids of their metadata. Redis' memory
is used_memory, the most over the least while 10 to 90 % of the images are done. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.progress import Progress
from sizes import parse_sized

from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.lifeline import start_tied
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest

SIZE, SHARD_SIZE = 64, 64


@dataclass
class Watched:
    """What was seen while the job went on."""

    memory: list[tuple[float, int]] = field(default_factory=list)
    """The share of the images that was done, and bytes."""
    flower: list[float] = field(default_factory=list)
    """Milliseconds until Flower's API had answered; infinite when it did not."""


@contextmanager
def running(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these environment variables; it is ended with the context."""
    with log.open("wb") as lines:
        process = start_tied(list(command), env={**os.environ, **variables}, stdout=lines, stderr=lines)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def flower_milliseconds(url: str) -> float:
    """How long Flower's API takes to list the workers and the tasks."""
    began = time.monotonic()
    try:
        for path in ("/api/workers?status=true", "/api/tasks?limit=100"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                json.load(answer)
    except (urllib.error.URLError, TimeoutError):
        return float("inf")
    return (time.monotonic() - began) * 1000


def watch(ledger: Ledger, job_id: str, client: Any, flower: str) -> tuple[JobStatus, Watched]:
    """Follows the job to its end."""
    seen = Watched()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("images", total=None)
        while (status := ledger.status(job_id)).state != "finished":
            seen.memory.append((status.done / max(status.total, 1), client.info("memory")["used_memory"]))
            seen.flower.append(flower_milliseconds(flower))
            bar.update(task, total=status.total, completed=status.done)
            time.sleep(1)
    return status, seen


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower-port", type=int, default=5599)
    options = parse_sized(parser, images=(200, 20_000, 100_000), workers=(1, 2, 2))
    flower = f"http://127.0.0.1:{options.flower_port}"
    bin_folder = Path(sys.executable).parent
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedRedis())
        ledger, client = Ledger(server.url), redis.Redis.from_url(server.url)
        variables = {
            "IMAGEMILL_REDIS_URL": server.url,
            "IMAGEMILL_OUTPUT_ROOT": str(folder),
            "IMAGEMILL_RUNTIME_DIR": str(folder),
            "FLOWER_UNAUTHENTICATED_API": "true",
        }
        stack.enter_context(
            running(
                *(sys.executable, "-m", "celery", "-A", "worker.celery_app", "flower"),
                *("--address=127.0.0.1", f"--port={options.flower_port}"),
                log=folder / "flower.log",
                **variables,
            )
        )
        for number in range(options.workers):
            stack.enter_context(
                running(
                    *(str(bin_folder / "imagemill-worker"), "--gpus", "none", "--name", f"w{number}"),
                    log=folder / f"w{number}.log",
                    **variables,
                )
            )
        while len(ledger.workers()) < options.workers or flower_milliseconds(flower) == float("inf"):
            time.sleep(0.2)
        prompts = folder / "prompts.txt"
        prompts.write_text(
            "".join(f"a picture of number {n}\n" for n in range(options.images)), encoding="utf-8"
        )
        manifest = folder / "machinery.json"
        manifest.write_text(
            json.dumps(
                {
                    "name": "machinery",
                    "model": "instant",
                    "output": str(folder / "out"),
                    "shard_size": SHARD_SIZE,
                    "settings": {"height": SIZE, "width": SIZE},
                    "prompts_from": prompts.name,
                }
            ),
            encoding="utf-8",
        )
        job_id = submit_manifest(prepare(manifest, Settings()), JobQueue.at(server.url)).job_id
        status, seen = watch(ledger, job_id, client, flower)
        output = Output(folder / "out")
        files = len(list(output.path.glob("[0-9]*/*.png")))
        image_ids = [row["image_id"] for shard in output.shards() for row in output.records(shard)]
        began = time.monotonic()
        again = plan_submission(prepare(manifest, Settings()), Settings())
        plan_seconds = time.monotonic() - began
    seconds = status.ended - status.started
    middle = [bytes_ for share, bytes_ in seen.memory if 0.1 <= share <= 0.9]
    exact = status.done == files == len(image_ids) == len(set(image_ids)) == options.images
    exact = exact and again.survey.held == options.images
    result = {
        "images_per_s": round(options.images / seconds, 1),
        "seconds": round(seconds, 1),
        "exact": exact,
        "flower_polls": len(seen.flower),
        "flower_answered": sum(taken < float("inf") for taken in seen.flower),
        "flower_ms_median": round(sorted(seen.flower)[len(seen.flower) // 2]),
        "flower_ms_max": round(max(seen.flower)) if max(seen.flower) < float("inf") else None,
        "plan_seconds": round(plan_seconds, 2),
        "memory_ratio": round(max(middle) / min(middle), 3) if middle else None,
    }
    print(f"{options.images} images of {SIZE}x{SIZE}, {options.workers} workers, {SHARD_SIZE} a shard")
    print(f"done {status.done}, files {files}, image_ids {len(set(image_ids))}")
    for name, value in result.items():
        print(f"{name:<18}{value}")
    print(json.dumps(result))
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
