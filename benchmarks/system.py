"""The whole system against the bare engine: what Redis, Celery, PNG, metadata and fsync cost.

    python benchmarks/system.py [--toy | --full]

Three arms in turn, each round: diffusers' own batched pipeline; the bare engine (the worker's, every order
handed over at once, its pixels thrown away); and the whole system (a Redis of its own, a real worker, images
and metadata on disk). One torch thread and 16 slots in every arm. A job's time is the ledger's: from its
first claim to the moment nothing was left to render; each job goes to a fresh output, in one worker that has
loaded its model. Medians are over rounds; a ratio is the median of the rounds' ratios. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from rich.progress import track
from sizes import parse_sized

from jobs.ledger.ledger import Ledger
from jobs.lifeline import start_tied
from jobs.models.models import BUILT_IN
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from worker.diffusion.build_scheduler import build_scheduler
from worker.engine.engine import Engine
from worker.engine.renderer import Bucket, Pipeline
from worker.engine.request_queue import Order
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipelines import load_model
from worker.renderers.shapes_random import build

SLOTS, SIZE, GUIDANCE, SCHEDULER = 16, 64, 7.5, "DDIM"
PER_BATCH = SLOTS // 2
PIPELINE = Pipeline("shapes-random", BUILT_IN["shapes-random"].revision, "fp32")


def prompts(images: int) -> list[str]:
    """Distinct prompts: no text cache helps."""
    return [f"a picture of number {n}, drawn in colour" for n in range(images)]


def diffusers_arm(pipeline: object, images: int, steps: int) -> float:
    """Seconds of diffusers' pipeline in batches of the same size; it gives PIL images."""
    texts, began = prompts(images), time.monotonic()
    for start in range(0, images, PER_BATCH):
        part = texts[start : start + PER_BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        pipeline(  # type: ignore[operator]
            part,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=generators,
        )
    return time.monotonic() - began


def bare_arm(engine: Engine, images: int, steps: int) -> float:
    """Seconds of the worker's own engine, pixels thrown away."""
    arrived = threading.Semaphore(0)
    bucket = Bucket(PIPELINE, SIZE, SIZE, SLOTS)
    orders = [
        Order(bucket, request, None, lambda _outcome: arrived.release())
        for request in requests(images, steps)
    ]
    began = time.monotonic()
    engine.submit(orders)
    for _ in orders:
        arrived.acquire()
    return time.monotonic() - began


def requests(images: int, steps: int) -> list[ImageRequest]:
    """The images of the job, for the engine alone."""
    return [
        ImageRequest(
            prompt=text,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            scheduler=SCHEDULER,
            seed=n,
            model=PIPELINE.model,
            revision=PIPELINE.revision,
        )
        for n, text in enumerate(prompts(images))
    ]


class System:
    """A Redis and a worker that stay, for one job after another."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url, self._ledger, self._jobs = folder, url, Ledger(url), 0

    def run(self, images: int, steps: int) -> float:
        """Seconds from a job's first claim until nothing is left of it."""
        self._jobs += 1
        output = self._folder / f"out-{self._jobs}"
        manifest = {
            "name": "system",
            "model": "shapes-random",
            "output": str(output),
            "shard_size": 48,
            "settings": {
                "height": SIZE,
                "width": SIZE,
                "num_inference_steps": steps,
                "guidance_scale": GUIDANCE,
                "scheduler": SCHEDULER,
            },
            "prompts": prompts(images),
        }
        file = self._folder / "system.yaml"
        file.write_text(json.dumps(manifest), encoding="utf-8")
        job_id = submit_manifest(prepare(file, Settings()), JobQueue.at(self._url)).job_id
        while (status := self._ledger.status(job_id)).state != "finished":
            time.sleep(0.5)
        written = len(list(output.glob("[0-9]*/*.png")))
        if (status.done, written) != (images, images):
            raise SystemExit(f"the job is not whole: {status.done} done, {written} files of {images}")
        return status.ended - status.started


@contextmanager
def system(folder: Path) -> Iterator[System]:
    """Starts Redis and `imagemill-worker`; ends both."""
    with EmbeddedRedis() as server:
        environment = {
            **os.environ,
            "IMAGEMILL_REDIS_URL": server.url,
            "IMAGEMILL_OUTPUT_ROOT": str(folder),
            "IMAGEMILL_BATCH_SIZE": str(SLOTS),
            "IMAGEMILL_TORCH_THREADS": "1",
            "IMAGEMILL_RUNTIME_DIR": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        with (folder / "worker.log").open("wb") as log:
            command = [str(Path(sys.executable).parent / "imagemill-worker"), "--gpus", "none"]
            worker = start_tied(command, env=environment, stdout=log, stderr=log)
        try:
            yield System(folder, server.url)
        finally:
            worker.terminate()
            worker.wait()


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(parser, images=(8, 128, 240), rounds=(1, 3, 5), steps=(3, 20, 20))
    torch.set_num_threads(1)
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = build_scheduler(SCHEDULER, pipeline.scheduler.config)
    renderer = DiffusionRenderer(load_model(PIPELINE.model, PIPELINE.revision, "fp32", "cpu"))
    engine = Engine(lambda _pipeline: renderer)
    engine.start()
    seconds: dict[str, list[float]] = {"diffusers": [], "bare": [], "system": []}
    with closing(engine), tempfile.TemporaryDirectory() as name, system(Path(name)) as whole:
        diffusers_arm(pipeline, PER_BATCH, options.steps)  # warms up
        bare_arm(engine, PER_BATCH, options.steps)
        whole.run(2 * PER_BATCH, options.steps)
        for _ in track(range(options.rounds), "rounds", disable=not sys.stderr.isatty()):
            seconds["diffusers"].append(diffusers_arm(pipeline, options.images, options.steps))
            seconds["bare"].append(bare_arm(engine, options.images, options.steps))
            seconds["system"].append(whole.run(options.images, options.steps))
    print(
        f"{options.images} images, {SIZE}x{SIZE}, {options.steps} guided {SCHEDULER} steps, {SLOTS} slots, "
        "one torch thread"
    )
    print(f"{'arm':<12}{'median s':>10}{'images/s':>10}{'min s':>8}{'max s':>8}")
    for arm, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{arm:<12}{median:>10.2f}{options.images / median:>10.2f}{min(taken):>8.2f}{max(taken):>8.2f}")
    ratios = [bare / whole for bare, whole in zip(seconds["bare"], seconds["system"], strict=True)]
    bare = [theirs / ours for theirs, ours in zip(seconds["diffusers"], seconds["bare"], strict=True)]
    result = {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "bare_vs_diffusers": round(statistics.median(bare), 3),
        "images_per_s": {
            arm: round(options.images / statistics.median(taken), 2) for arm, taken in seconds.items()
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
