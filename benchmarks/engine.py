"""The engine against diffusers' pipeline: one by one, grouped by identical settings, and batched by step.

    python benchmarks/engine.py [--toy | --full]

A mix is --small or --large images whose steps (10, 20, 30, 40), guidance (1, 3, 5, 7.5) and scheduler (LMS,
DDIM, Euler, DPM++ 2M) are drawn by a seed; a uniform job is --uniform images with the same settings. Three
arms, in turn: diffusers' pipeline called for each image; called for groups of up to 8 images with identical
settings; and the worker's engine with 16 slots, every picture handed over as pixels. All end with pictures on
the host, nothing is saved. UNet calls and the slots of each are counted; time is the process's CPU time on
one thread, and a ratio is the median over rounds.

Three regimes, and the cost of a slot alone and among others is measured as well. Overhead-bound: the
built-in model at 64x64. Compute-bound: a random UNet of more channels at 128x128. Flat: one whose slot costs
nearly the same in any batch, at 256x256, where batching can gain next to nothing and padding can only lose.

"Least" are the slots that the images need, 2 a step where guided. Slots are counted over --mixes seeds, time
is taken on the first. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from painting import diffusers_pipeline
from rich.console import Console
from rich.table import Table
from sizes import parse_sized

from jobs.models.models import BUILT_IN
from jobs.request import ImageRequest
from jobs.schedulers import forwards
from worker.diffusion.build_scheduler import build_scheduler
from worker.engine.engine import Engine
from worker.engine.renderer import Bucket, Pipeline, Renderer
from worker.engine.request_queue import Finished, Order, Outcome
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipelines import load_model

SLOTS, GROUP = 16, 8
STEPS, GUIDANCE, SCHEDULERS = (10, 20, 30, 40), (1.0, 3.0, 5.0, 7.5), ("LMS", "DDIM", "Euler", "DPM++ 2M")
PIPELINE = Pipeline("benchmark", "1", "fp32")


def mix(images: int, seed: int, shorten: int, size: int = 64) -> list[ImageRequest]:
    """Images of mixed settings; their steps are divided by `shorten`."""
    draw = random.Random(seed)
    return [
        request(n, draw.choice(STEPS) // shorten, draw.choice(GUIDANCE), draw.choice(SCHEDULERS), size)
        for n in range(images)
    ]


def request(number: int, steps: int, guidance: float, scheduler: str, size: int = 64) -> ImageRequest:
    """One image with a prompt of its own: no text cache helps."""
    return ImageRequest(
        prompt=f"a picture of number {number}",
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=guidance,
        scheduler=scheduler,
        seed=number,
        model="benchmark",
        revision="1",
    )


@dataclass(frozen=True, slots=True)
class Run:
    """What one arm took for one set of images."""

    seconds: float
    """CPU time."""
    calls: int
    """Of the UNet."""
    slots: int
    """Slot evaluations."""


class Arms:
    """The three arms over the same weights."""

    def __init__(self, model: ImageDiffusionModel) -> None:
        self._model = model
        self._pipe = diffusers_pipeline(model)
        self._calls = self._slots = 0
        model.unet.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _unet: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        self._calls += 1
        self._slots += len(arguments[0] if arguments else named["sample"])

    def one_by_one(self, requests: Sequence[ImageRequest]) -> Run:
        """diffusers' pipeline, called for each image."""
        return self._measure(lambda: [self._call([each]) for each in requests])

    def grouped(self, requests: Sequence[ImageRequest]) -> Run:
        """diffusers' pipeline, called for groups with identical settings."""
        groups: dict[tuple[object, ...], list[ImageRequest]] = {}
        for each in requests:
            key = (each.num_inference_steps, each.guidance_scale, each.scheduler)
            groups.setdefault(key, []).append(each)
        parts = [group[n : n + GROUP] for group in groups.values() for n in range(0, len(group), GROUP)]
        return self._measure(lambda: [self._call(part) for part in parts])

    def engine(self, requests: Sequence[ImageRequest]) -> Run:
        """The worker's engine, with its schedulers compiled before, as in a worker that has run a while."""
        return self.rendered(DiffusionRenderer(self._model), requests)

    def rendered(self, renderer: Renderer, requests: Sequence[ImageRequest]) -> Run:
        """The worker's engine around any renderer of this model."""
        with engine_of(renderer) as engine:
            return self._measure(lambda: render(engine, requests))

    def _call(self, requests: Sequence[ImageRequest]) -> None:
        one = requests[0]
        self._pipe.scheduler = build_scheduler(one.scheduler, self._model.scheduler_DDIM.config)
        self._pipe(
            [each.prompt for each in requests],
            height=one.height,
            width=one.width,
            num_inference_steps=one.num_inference_steps,
            guidance_scale=one.guidance_scale,
            generator=[torch.Generator().manual_seed(each.seed) for each in requests],
        )

    def _measure(self, work: Callable[[], object]) -> Run:
        self._calls = self._slots = 0
        began = time.process_time()
        work()
        return Run(time.process_time() - began, self._calls, self._slots)


@contextmanager
def engine_of(renderer: Renderer) -> Iterator[Engine]:
    """A started engine around a renderer."""
    engine = Engine(lambda _pipeline: renderer)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


def render(engine: Engine, requests: Sequence[ImageRequest], slots: int = SLOTS) -> None:
    """Renders the images and throws the pixels away."""
    arrived = threading.Semaphore(0)
    failures: list[Outcome] = []

    def deliver(outcome: Outcome) -> None:
        if not isinstance(outcome, Finished) or outcome.flagged:
            failures.append(outcome)
        arrived.release()

    bucket = Bucket(PIPELINE, requests[0].height, requests[0].width, slots)
    engine.submit([Order(bucket, each, None, deliver) for each in requests])
    for _ in requests:
        arrived.acquire()
    if failures:
        raise SystemExit(f"{len(failures)} images came out bad: {failures[0]}")


def least_slots(requests: Sequence[ImageRequest]) -> int:
    """Slot evaluations that the images need."""
    return sum(
        forwards(each.scheduler, each.num_inference_steps) * (2 if each.guided else 1) for each in requests
    )


def around(shapes: ImageDiffusionModel, channels: tuple[int, int]) -> ImageDiffusionModel:
    """The built-in model around a random UNet of other channels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=shapes.unet.config.in_channels,
        out_channels=shapes.unet.config.out_channels,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=16,
        cross_attention_dim=shapes.unet.config.cross_attention_dim,
    )
    return ImageDiffusionModel(
        vae=shapes.vae,
        tokenizer=shapes.tokenizer,
        text_encoder=shapes.text_encoder,
        unet=unet,
        scheduler_LMS=shapes.scheduler_LMS,
        scheduler_DDIM=shapes.scheduler_DDIM,
        device="cpu",
        precision="fp32",
    )


@torch.inference_mode()
def slot_cost(model: ImageDiffusionModel, size: int, slots: int, repeats: int) -> float:
    """Milliseconds of CPU time that a slot takes among `slots` slots: the least of the repeats."""
    config = model.unet.config
    inputs = torch.randn(slots, config.in_channels, size // 8, size // 8)
    embeds = torch.randn(slots, 32, config.cross_attention_dim)
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        model.unet(inputs, torch.ones(slots), encoder_hidden_states=embeds)
        taken.append(time.process_time() - began)
    return min(taken) / slots * 1e3


def in_turn(arms: Arms, requests: Sequence[ImageRequest], rounds: int) -> dict[str, list[Run]]:
    """Every arm once a round."""
    named = {"one by one": arms.one_by_one, "grouped": arms.grouped, "engine": arms.engine}
    runs: dict[str, list[Run]] = {name: [] for name in named}
    for _ in range(rounds):
        for name, arm in named.items():
            runs[name].append(arm(requests))
    return runs


def speed(runs: dict[str, list[Run]], against: str) -> float:
    """How many times as fast as another arm the engine was: the median of the rounds."""
    each = zip(runs[against], runs["engine"], strict=True)
    return round(statistics.median(theirs.seconds / ours.seconds for theirs, ours in each), 3)


def main() -> None:
    """Prints tables and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(
        parser,
        small=(2, 24, 60),
        large=(3, 40, 240),
        uniform=(2, 24, 96),
        compute=(1, 6, 60),
        flat=(1, 1, 30),
        mixes=(1, 1, 5),
        rounds=(1, 1, 3),
        among=(2, 16, 16),
        shorten=(10, 1, 1),
        repeats=(1, 8, 8),
        compute_size=(64, 128, 128),
        flat_size=(64, 256, 256),
    )
    torch.set_num_threads(1)
    shapes = load_model("shapes", BUILT_IN["shapes"].revision, "fp32", "cpu")
    heavy, flat = around(shapes, (128, 256)), around(shapes, (64, 128))
    regimes = {
        "overhead-bound": (shapes, 64),
        "compute-bound": (heavy, options.compute_size),
        "flat": (flat, options.flat_size),
    }
    costs = {
        name: {
            slots: round(slot_cost(model, size, slots, options.repeats), 2)
            for slots in (1, 2, 4, 8, 16)
            if slots <= options.among
        }
        for name, (model, size) in regimes.items()
    }
    arms = Arms(shapes)
    uniform = [request(n, 20 // options.shorten, 7.5, "DDIM") for n in range(options.uniform)]
    arms.engine(mix(options.among, 0, options.shorten))  # warms up: schedulers are compiled, memory is there
    arms.grouped(uniform[:GROUP])
    results = {
        ("overhead-bound", "small"): in_turn(arms, mix(options.small, 0, options.shorten), options.rounds),
        ("overhead-bound", "large"): in_turn(arms, mix(options.large, 0, options.shorten), 1),
        ("overhead-bound", "uniform"): in_turn(arms, uniform, options.rounds),
        ("compute-bound", "small"): in_turn(
            Arms(heavy), mix(options.compute, 0, options.shorten, options.compute_size), 1
        ),
        ("flat", "small"): in_turn(Arms(flat), mix(options.flat, 0, options.shorten, options.flat_size), 1),
    }
    counted = {
        images: [
            (requests, arms.engine(requests).slots)
            for requests in (mix(images, seed, options.shorten) for seed in range(options.mixes))
        ]
        for images in (options.small, options.large)
    }
    show(costs, results)
    ratios = {
        images: sum(slots for _, slots in sets) / sum(least_slots(requests) for requests, _ in sets)
        for images, sets in counted.items()
    }
    for images, sets in counted.items():
        each = ", ".join(f"{slots}/{least_slots(requests)}" for requests, slots in sets)
        print(f"slot evaluations of {options.mixes} mixes of {images}, engine/least: {each}")
    small = results["overhead-bound", "small"]
    compute, even = results["compute-bound", "small"], results["flat", "small"]
    result = {
        "calls_ratio": round(small["engine"][0].calls / small["grouped"][0].calls, 3),
        "slots_ratio": round(ratios[options.small], 3),
        "slots_ratio_large": round(ratios[options.large], 3),
        "speed_vs_grouped": speed(small, "grouped"),
        "speed_vs_one": speed(small, "one by one"),
        "uniform": speed(results["overhead-bound", "uniform"], "grouped"),
        "compute_speed_vs_grouped": speed(compute, "grouped"),
        "compute_speed_vs_one": speed(compute, "one by one"),
        "flat_speed_vs_grouped": speed(even, "grouped"),
        "flat_speed_vs_one": speed(even, "one by one"),
        "speed_vs_grouped_large": speed(results["overhead-bound", "large"], "grouped"),
        "slot_ms": costs,
    }
    print(json.dumps(result))


def show(costs: dict[str, dict[int, float]], results: dict[tuple[str, str], dict[str, list[Run]]]) -> None:
    """The tables."""
    console = Console(width=110, file=sys.stdout)
    table = Table("ms of a slot among", *map(str, costs["overhead-bound"]))
    for name, each in costs.items():
        table.add_row(name, *map(str, each.values()))
    console.print(table)
    table = Table("regime", "job", "arm", "UNet calls", "slots", "CPU s", "engine is faster")
    for (regime, images), runs in results.items():
        for arm, taken in runs.items():
            seconds = statistics.median(run.seconds for run in taken)
            faster = "" if arm == "engine" else f"{speed(runs, arm)}x"
            table.add_row(
                regime, images, arm, str(taken[0].calls), str(taken[0].slots), f"{seconds:.2f}", faster
            )
    console.print(table)


if __name__ == "__main__":
    main()
