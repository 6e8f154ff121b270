"""Every scheduler inside mixed batches against diffusers' pipeline alone.

    python benchmarks/schedulers.py [--model shapes] [--toy | --full]

All samplers, at guidance 1 and 7.5 and at 10 and 25 steps, share the forwards of one denoiser of 16 slots,
each by its compiled table. StableDiffusionPipeline paints the same prompts and seeds one at a time, in
float32. A difference is the largest of any pixel's, as floats 0 .. 1. Model and sampler amplify rounding: the
last column is diffusers' pipeline against itself, the same image as the first of a batch of two. Where that
is as large as ours, the difference is the model's, not the table's. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from typing import Any

import numpy as np
import torch
from painting import diffusers_pipeline
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sizes import parse_sized

from jobs.models.models import BUILT_IN
from jobs.schedulers import SCHEDULERS
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.sampling import sample
from worker.diffusion.sampling_settings import Sampling
from worker.engine.admission_queue import queue_of
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.pipelines import load_model

SLOTS, SIZE, GOAL = 16, 64, 1e-5
GUIDANCE, STEPS = (1.0, 7.5), (10, 25)
PROMPT = "a red circle in the middle on a white background"
Case = tuple[str, float, int]


def cases(samplers: int, lengths: int) -> list[Case]:
    """Sampler, guidance, steps; of the first so many samplers and of STEPS."""
    names = [scheduler.name for scheduler in SCHEDULERS[:samplers]]
    return list(itertools.product(names, GUIDANCE, STEPS[:lengths]))


def mixed(model: ImageDiffusionModel, every: list[Case]) -> dict[Case, np.ndarray]:
    """Our picture of every case, [H,W,3] 0 .. 1; all are denoised together."""
    negative, prompt = model.get_text_embeds(["", PROMPT])
    images = [
        model.latent_image(
            (name, guidance, steps),
            prompt,
            negative if guidance > 1 else None,
            Sampling(SIZE, SIZE, steps, guidance_scale=guidance, scheduler=name, seed=seed),
        )
        for seed, (name, guidance, steps) in enumerate(every)
    ]
    waiting = queue_of((image, image.slots, image.table.forwards) for image in images)
    pictures: dict[Case, np.ndarray] = {}
    for finished in sample(model.denoiser(SIZE, SIZE, SLOTS), waiting.take):
        for image, latents in finished:
            decoded = model.decode_img_latents(latents[None])[0]
            pictures[image.key] = (decoded / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    return pictures


def alone(pipe: Any, model: ImageDiffusionModel, seed: int, case: Case, batch: int) -> np.ndarray:
    """diffusers' picture of a case, the first of a batch, [H,W,3] 0 .. 1."""
    name, guidance, steps = case
    pipe.scheduler = build_scheduler(name, model.scheduler_DDIM.config)
    pictures: np.ndarray = pipe(
        [PROMPT] * batch,
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + n) for n in range(batch)],
        output_type="np",
    ).images
    return pictures[0]


def main() -> None:
    """Prints a table and, last, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["shapes", "shapes-random"], default="shapes")
    options = parse_sized(parser, samplers=(1, len(SCHEDULERS), len(SCHEDULERS)), lengths=(1, 2, 2))
    every = cases(options.samplers, options.lengths)
    torch.set_num_threads(1)
    model = load_model(options.model, BUILT_IN[options.model].revision, "fp32", "cpu")
    pipe = diffusers_pipeline(model)
    pictures = mixed(model, every)
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    for seed, case in enumerate(track(every, "images", disable=not sys.stderr.isatty())):
        reference = alone(pipe, model, seed, case, 1)
        again = alone(pipe, model, seed, case, 2)
        ours[case[0]] = max(ours.get(case[0], 0.0), float(abs(pictures[case] - reference).max()))
        theirs[case[0]] = max(theirs.get(case[0], 0.0), float(abs(again - reference).max()))
    compiled = [
        name for name in ours if all(model.scheduler_table(name, n).coefficients is not None for n in STEPS)
    ]
    table = Table("scheduler", "by its table", "largest difference", "diffusers against itself")
    for name, difference in ours.items():
        by_table = "yes" if name in compiled else f"no: {model.scheduler_table(name, STEPS[0]).reason}"
        table.add_row(name, by_table, f"{difference:.1e}", f"{theirs[name]:.1e}")
    Console(width=110).print(table)
    result = {
        "compiled": len(compiled),
        "compiled_within_1e-5": sum(ours[name] <= GOAL for name in compiled),
        "max_abs_diff": max(ours.values()),
        "max_abs_diff_of_diffusers_against_itself": max(theirs.values()),
        "differences": {name: float(f"{difference:.2e}") for name, difference in ours.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
