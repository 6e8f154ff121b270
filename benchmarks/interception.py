"""What it costs to paint by interception: beside the forward, against the tables, and against one by one.

    python benchmarks/interception.py [--toy | --full]

1. An image-step beside its forward. The denoiser is replaced by a stored output, and tiny pipelines of five
   families run their own loop, an image after the other, and then eight slots together in the hub. CPU time
   and launches are those between the first forward and the last: texts, noise and the autoencoder are no part
   of it. A launch is a torch operator that computes or copies; views, allocations and numbers that the host
   reads are none.
2. `shapes`, which the tables render, forced through interception, on the mix of benchmarks/engine.py and in
   as many slots, by the worker's engine in both cases, and diffusers' pipeline one by one.
3. What tables would save for Stable Diffusion XL, on that mix. At best: the CPU time of intercepted images,
   divided by that inside the UNet, the autoencoder and the text encoders, which tables need as well.
   Estimated: divided by that and what the tables' rendering of `shapes-random` takes outside of them, in as
   many slots; latents are of the same size there.

Time is the CPU time of the process on one thread; of rounds a cost is the least, a ratio the median.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from types import MethodType
from typing import Any

# A script's own folder is on the path, the repository's is not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import diffusers
import torch
import transformers
from engine import SLOTS, Arms, Run, engine_of, mix, render
from painting import diffusers_pipeline
from rich.console import Console
from rich.table import Table
from sizes import parse_sized
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.arguments import arguments_text
from jobs.models.models import BUILT_IN
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES
from worker.diffusion.interception import Hub
from worker.diffusion.painter import Painter
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Renderer
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.learning import learn_and_prove, sample_of
from worker.renderers.pipeline_renderer import PipelineRenderer
from worker.renderers.pipelines import load_model

NAMES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "FluxPipeline",
    "QwenImagePipeline",
    "ZImagePipeline",
)
TOGETHER = 8
"""Slots that hold an image where the denoiser's output is stored."""
XL_SLOTS = (8, 16)
NO_LAUNCH = {
    "aten::_local_scalar_dense",
    "aten::detach",
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::lift_fresh",
    "aten::new_empty",
}
"""Operators that are neither views nor work for a device."""


class Launches(TorchDispatchMode):
    """Counts the operators that would launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not func.is_view and name not in NO_LAUNCH:
            self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True)
class Step:
    """What an image-step takes beside its forward."""

    ms: float
    """CPU time."""
    launches: float


@contextmanager
def stored_outputs(painter: Painter, mark: Callable[[], None]) -> Iterator[None]:
    """Every call of a denoiser marks, and gives the output of its first one."""
    modules = list(painter.denoisers.values())

    def stored(module: Any) -> Any:
        real, kept = type(module).forward, []

        @wraps(real)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not kept:
                kept.append(real(self, *args, **kwargs))
            mark()
            return kept[0]

        return MethodType(forward, module)

    for module in modules:
        module.forward = stored(module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def between_forwards(painter: Painter, paint: Callable[[], object], steps: int, images: int) -> Step:
    """What `paint` takes for an image-step between its first forward and its last."""
    launches = Launches()
    marks: list[tuple[float, int]] = []

    def measured() -> list[tuple[float, int]]:
        marks.clear()
        with stored_outputs(painter, lambda: marks.append((time.process_time(), launches.count))):
            paint()
        every = max(1, len(marks) // steps)  # a guided image of some families calls twice a step
        return marks[::every]

    timed = measured()
    with launches:
        counted = measured()
    image_steps = images * (len(timed) - 1)
    return Step(
        (timed[-1][0] - timed[0][0]) * 1e3 / image_steps, (counted[-1][1] - counted[0][1]) / image_steps
    )


def step_costs(name: str, steps: int, rounds: int) -> tuple[Step, Step]:
    """A family's image-step in its own loop and by interception."""
    family = FAMILIES[name]
    painter = Painter(family.build())
    learned = learn_and_prove(painter, sample_of(painter))
    kind = painter.kind
    one = replace(
        sample_of(painter),
        num_inference_steps=steps,
        height=family.height,
        width=family.width,
        negative_prompt="blurry" if kind.negative_prompt else "",
        guidance_scale=4.0,
        arguments=arguments_text(dict(family.arguments)),
    )
    images = TOGETHER // learned.slots[kind.guided(one)]
    # The seeds alone differ: all of them are in each forward from the first to the last.
    requests = [replace(one, seed=seed) for seed in range(images)]

    def own_loop() -> None:
        with torch.no_grad():
            painter.paint(one)

    def together() -> None:
        hub: Hub[int] = Hub(learned.rules, TOGETHER + painter.spare_slots, spare=painter.spare_slots)
        for number, each in enumerate(requests):
            hub.start(number, partial(painter.paint, each, None))
        while hub.free_slots >= 0 and hub.running:  # as a renderer asks before every forward
            hub.forward()
            hub.finished()

    own = [between_forwards(painter, own_loop, steps, 1) for _ in range(rounds)]
    ours = [between_forwards(painter, together, steps, images) for _ in range(rounds)]
    return cheapest(own), cheapest(ours)


def cheapest(steps: Sequence[Step]) -> Step:
    return min(steps, key=lambda step: step.ms)


# The built-in model.


def intercepted(pipeline: Any, device: torch.device) -> PipelineRenderer:
    """A renderer by interception; it has learned."""
    return PipelineRenderer(
        pipeline,
        precision=resolve_precision("fp32", device),
        device=device,
        model="benchmark",
        revision="1",
    )


def shapes_in_turn(options: argparse.Namespace) -> dict[str, list[Run]]:
    """Every arm once a round."""
    model = load_model("shapes", BUILT_IN["shapes"].revision, "fp32", "cpu")
    arms = Arms(model)
    by_call = intercepted(diffusers_pipeline(model), model.device)
    tables = DiffusionRenderer(model)
    named: dict[str, Callable[[Sequence[ImageRequest]], Run]] = {
        "one by one": arms.one_by_one,
        "tables": partial(arms.rendered, tables),
        "interception": partial(arms.rendered, by_call),
    }
    arms.rendered(tables, mix(SLOTS, 0, options.shorten))  # schedulers are compiled
    runs: dict[str, list[Run]] = {name: [] for name in named}
    for number in range(options.rounds):
        for name, arm in named.items():
            runs[name].append(arm(new_texts(options, number)))
    return runs


def new_texts(options: argparse.Namespace, number: int) -> list[ImageRequest]:
    """The mix with prompts of this round alone: renderers remember the texts that they encoded."""
    requests = mix(options.images, 0, options.shorten)
    return [replace(each, prompt=f"{each.prompt}, round {number}") for each in requests]


def faster(runs: dict[str, list[Run]], arm: str, than: str) -> float:
    """How many times as fast an arm was: the median of the rounds."""
    each = zip(runs[than], runs[arm], strict=True)
    return round(statistics.median(theirs.seconds / ours.seconds for theirs, ours in each), 3)


# Stable Diffusion XL.


@dataclass(frozen=True, slots=True)
class Parts:
    """CPU seconds of images, medians of rounds."""

    inside: float
    """Those inside the networks."""
    outside: float


def parts_of(networks: Any, renderer: Renderer, slots: int, options: argparse.Namespace) -> Parts:
    """Renders the mix by the worker's engine. networks: what holds the unet, vae and text encoders."""
    inside = [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def inner(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                inside[0] += time.process_time() - began

        return inner

    networks.vae.decode = timed(networks.vae.decode)
    for name in ("unet", "text_encoder", "text_encoder_2"):
        if (network := getattr(networks, name, None)) is not None:
            network.forward = timed(network.forward)
    found = []
    for number in range(1 + options.rounds):
        requests = new_texts(options, number)
        with engine_of(renderer) as engine:
            inside[0], began = 0.0, time.process_time()
            render(engine, requests, slots)
            found.append((time.process_time() - began, inside[0]))
    # The first warms up: tables are compiled, and LMS' coefficients are known.
    return Parts(
        statistics.median(within for _all, within in found[1:]),
        statistics.median(total - within for total, within in found[1:]),
    )


def xl_parts(slots: int, options: argparse.Namespace) -> tuple[Parts, Parts]:
    """Tiny SDXL by interception, and `shapes-random` by the tables."""
    pipeline = FAMILIES["StableDiffusionXLPipeline"].build()
    by_call = parts_of(pipeline, intercepted(pipeline, torch.device("cpu")), slots, options)
    model = load_model("shapes-random", BUILT_IN["shapes-random"].revision, "fp32", "cpu")
    return by_call, parts_of(model, DiffusionRenderer(model), slots, options)


def at_best(by_call: Parts) -> float:
    """How many times as fast tables could be that cost nothing."""
    return (by_call.inside + by_call.outside) / by_call.inside


def estimated(by_call: Parts, tables: Parts) -> float:
    """How many times as fast tables would be that cost what they cost for another model."""
    return (by_call.inside + by_call.outside) / (by_call.inside + tables.outside)


def main() -> None:
    """Prints tables and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = parse_sized(
        parser,
        families=(1, 5, 5),
        steps=(3, 20, 20),
        images=(2, 24, 60),
        rounds=(1, 2, 5),
        shorten=(10, 1, 1),
        xl_sizes=(1, 2, 2),
    )
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # what is learned here is no worker's to read
        costs = {name: step_costs(name, options.steps, options.rounds) for name in NAMES[: options.families]}
        runs = shapes_in_turn(options)
        xl = {slots: xl_parts(slots, options) for slots in XL_SLOTS[: options.xl_sizes]}
    show(costs, runs, xl)
    result = {
        "ms_per_image_step": round(max(ours.ms - own.ms for own, ours in costs.values()), 3),
        "launches_per_image_step": round(
            max(ours.launches - own.launches for own, ours in costs.values()), 2
        ),
        "ms_beside_forward": {name: round(ours.ms, 3) for name, (_own, ours) in costs.items()},
        "forwards_vs_tables": round(runs["interception"][0].calls / runs["tables"][0].calls, 3),
        "cpu_vs_tables": round(1 / faster(runs, "interception", "tables"), 3),
        "speed_vs_one": faster(runs, "interception", "one by one"),
        "sdxl_tables_at_best": {slots: round(at_best(by_call), 3) for slots, (by_call, _) in xl.items()},
        "sdxl_tables_estimated": {slots: round(estimated(*both), 3) for slots, both in xl.items()},
    }
    print(json.dumps(result))


def show(
    costs: dict[str, tuple[Step, Step]],
    runs: dict[str, list[Run]],
    xl: dict[int, tuple[Parts, Parts]],
) -> None:
    """The tables."""
    console = Console(width=110, file=sys.stdout)
    table = Table(
        "image-step of", "own loop, ms", "launches", "intercepted, ms", "launches", "more ms", "more"
    )
    for name, (own, ours) in costs.items():
        more = (f"{ours.ms - own.ms:.3f}", f"{ours.launches - own.launches:.1f}")
        table.add_row(
            name, f"{own.ms:.3f}", f"{own.launches:.1f}", f"{ours.ms:.3f}", f"{ours.launches:.1f}", *more
        )
    console.print(table)
    table = Table("shapes", "UNet calls", "slots", "CPU s", "interception is faster")
    for arm, taken in runs.items():
        seconds = statistics.median(run.seconds for run in taken)
        than = "" if arm == "interception" else f"{faster(runs, 'interception', arm)}x"
        table.add_row(arm, str(taken[0].calls), str(taken[0].slots), f"{seconds:.2f}", than)
    console.print(table)
    table = Table(
        "tiny SDXL, slots", "CPU s inside", "outside", "tables' outside", "faster at best", "estimated"
    )
    for slots, (by_call, tables) in xl.items():
        seconds = [f"{each:.2f}" for each in (by_call.inside, by_call.outside, tables.outside)]
        table.add_row(str(slots), *seconds, f"{at_best(by_call):.2f}x", f"{estimated(by_call, tables):.2f}x")
    console.print(table)


if __name__ == "__main__":
    main()
