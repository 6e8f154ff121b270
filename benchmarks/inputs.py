"""Pictures in and adapters on: whether images are diffusers' own, and what it costs to switch LoRAs.

    python benchmarks/inputs.py [--toy | --full]

1. Tiny pipelines of six families paint image-to-image, inpainting and with a ControlNet, beside text: the
   largest difference to diffusers' own call, and whether bytes are equal alone, together and turned.
2. `shapes` through Redis and two workers: a job without LoRAs, and the same prompts over several LoRAs,
   shuffled in the manifest, in turn. A third arm undoes what submit sorts: its shards hold all LoRAs. Time is
   the CPU time of the processes that render; of rounds the ratio is the median.

The last line is JSON; the exit status is 1 when a picture differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table
from sizes import parse_sized
from timed_farm import TimedFarm, timed_farm

from jobs.entry import Entry
from tests.lora_files import random_lora
from tests.worker.renderers.pictured import Model, by_diffusers, pictured

FAMILIES = {
    "StableDiffusionPipeline": ("image", "image+mask_image", "control_image"),
    "StableDiffusionXLPipeline": ("image", "image+mask_image", "control_image"),
    "FluxPipeline": ("image", "image+mask_image", "control_image"),
    "StableDiffusion3Pipeline": ("image", "control_image"),
    "QwenImagePipeline": ("image",),
    "ZImagePipeline": ("image",),
}
MOST_DIFFERENCE = 1e-5
ARMS = ("none", "sorted", "unsorted")


def pictures(families: int, most_tasks: int, table: Table) -> tuple[float, bool]:
    """The largest difference to diffusers' own pictures, and whether all bytes were equal."""
    most, equal = 0.0, True
    for family, all_tasks in list(FAMILIES.items())[:families]:
        tasks = all_tasks[:most_tasks]
        # It has no scheduler of its own choice: a request always names one.
        settings = {"scheduler": "DDIM"} if family == "StableDiffusionPipeline" else {}
        model = Model(family, controlled="control_image" in tasks)
        requests = [
            pictured(family, task, 2 * number + odd, **settings)
            for number, task in enumerate(("", *tasks))
            for odd in (0, 1)
        ]
        together, _forwards = model.paint(requests)
        turned, _forwards = model.paint(requests[::-1])
        for number, task in enumerate(("", *tasks)):
            asked = requests[2 * number : 2 * number + 2]
            values = [(together[one.seed], by_diffusers(model, one)) for one in asked]
            difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in values)
            alike = all(
                np.array_equal(together[one.seed], other[one.seed])
                for one in asked
                for other in (turned, model.paint([one])[0])
            )
            most, equal = max(most, difference), equal and alike
            table.add_row(
                family, task.replace("+", ", ") or "text", f"{difference:.1e}", "yes" if alike else "NO"
            )
    return most, equal


@contextmanager
def unsorted() -> Iterator[None]:
    """Shards hold whatever follows one another, as if `submit` did not look at adapters."""
    before = Entry.group
    Entry.group = Entry.size  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        Entry.group = before  # type: ignore[misc, method-assign]


def lines(images: int, loras: list[Path]) -> list[dict[str, object]]:
    """Prompts that name each LoRA as often as the others, shuffled."""
    colours, shapes = ("red", "green", "blue", "yellow"), ("circle", "star", "square", "heart")
    made: list[dict[str, object]] = []
    for number in range(images):
        line: dict[str, object] = {
            "prompt": f"a {colours[number % 4]} {shapes[number // 4 % 4]}",
            "seed": number,
        }
        if loras:
            line["loras"] = [{"file": str(loras[number % len(loras)]), "scale": 0.8}]
        made.append(line)
    random.Random(1).shuffle(made)
    return made


def cpu_seconds(here: TimedFarm) -> float:
    """What the processes that render have used."""
    times = [here.celery(name).cpu_times() for name in here.workers]
    return sum(one.user + one.system for one in times)


def render(here: TimedFarm, name: str, images: int, loras: list[Path], options: argparse.Namespace) -> float:
    """CPU seconds of one job."""
    before = cpu_seconds(here)
    settings = {"height": 64, "width": 64, "num_inference_steps": options.steps, "guidance_scale": 3}
    job_id = here.submit(
        name, lines(images, loras), model="shapes", settings=settings, shard_size=options.shard
    )
    status = here.finished(job_id, deadline=3600.0)
    if (status.done, status.failed) != (images, 0):
        raise SystemExit(f"{job_id}: {status.done} of {images} done, {status.failed} failed")
    here.check_exact(job_id, images)
    return cpu_seconds(here) - before


def lora_times(here: TimedFarm, options: argparse.Namespace) -> dict[str, list[float]]:
    """CPU seconds of each arm, in turn."""
    loras = [here.folder / f"style-{number}.safetensors" for number in range(options.loras)]
    for seed, file in enumerate(loras):
        random_lora(file, seed)
    for _ in range(2):
        here.start_worker()
    render(
        here, "warm", 4 * options.shard, loras, options
    )  # both workers have loaded the model and the LoRAs
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(options.rounds):
        for arm in ARMS if turn % 2 == 0 else ARMS[::-1]:
            given = [] if arm == "none" else loras
            if arm == "unsorted":
                with unsorted():
                    times[arm].append(render(here, f"{arm}-{turn}", options.images, given, options))
            else:
                times[arm].append(render(here, f"{arm}-{turn}", options.images, given, options))
    return times


def main() -> None:
    """Prints two tables and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(
        parser,
        families=(1, 6, 6),
        tasks=(1, 3, 3),
        images=(4, 400, 1_000),
        loras=(2, 20, 20),
        rounds=(1, 1, 2),
        steps=(2, 20, 20),
        shard=(2, 50, 50),
    )
    console = Console(width=100)
    table = Table("family", "task", "largest difference", "bytes equal")
    most, equal = pictures(options.families, options.tasks, table)
    console.print(table)
    with tempfile.TemporaryDirectory() as name, timed_farm(Path(name), batch_size=16) as here:
        times = lora_times(here, options)
    ratios: dict[str, float] = {
        arm: statistics.median(mine / none for mine, none in zip(times[arm], times["none"], strict=True))
        for arm in ARMS
    }
    table = Table("LoRAs", "CPU seconds", "of no LoRA")
    for arm in ARMS:
        table.add_row(arm, ", ".join(f"{one:.1f}" for one in times[arm]), f"{ratios[arm]:.2f}")
    console.print(table)
    figures: dict[str, Any] = {
        "max_abs_diff": most,
        "bytes_equal": int(equal),
        "lora_time_ratio": round(ratios["sorted"], 3),
        "unsorted_time_ratio": round(ratios["unsorted"], 3),
    }
    sys.stdout.write(f"{json.dumps(figures)}\n")
    sys.exit(0 if equal and most <= MOST_DIFFERENCE else 1)


if __name__ == "__main__":
    main()
