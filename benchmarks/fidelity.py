"""How far the built-in model `shapes` obeys its prompts, as the checker reads its pictures.

    python benchmarks/fidelity.py [--model FOLDER] [--guidance 3] [--steps 20] [--scale 1]

500 prompts of fixed seeds, painted with DDIM and with LMS in batches of 16 on one torch thread: 200 of one
thing, 100 of one thing whose colour and shape the UNet never saw together, 150 of two things (half by
places, half by relations), 50 of two to four equal things. Shares are in per cent, with standard errors. The
shuffled control reads the same pictures against each other's prompts: what chance would score. Rates are of
wall time, text and decoding included. The last line is JSON: DDIM's figures, LMS's beneath `lms`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from rich.progress import track

# A script's own folder is on the path, the repository's is not: the grammar and the checker are in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.models import folder_revision
from tools.shapes.draw import SIZE
from tools.shapes.grammar import Scene, pairs, prompt_of
from tools.shapes.score import Score, fresh_scenes, score
from worker.image_diffusion_model import ImageDiffusionModel
from worker.pipelines import load_model

BATCH: Final = 16
MODEL: Final = Path(__file__).resolve().parents[1] / "worker" / "models" / "shapes"
SEED: Final = 20_000
"""Of the noise; far from the seeds that training looked at. The small world's prompts themselves recur."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Scenes of one sort, their pictures by one sampler, and the seconds they took."""

    scenes: list[Scene]
    images: list[Image.Image]
    seconds: float


def scenes_by_sort(scale: float) -> dict[str, list[Scene]]:
    """The benchmark's prompts by sort: 500 at scale 1."""
    seen, held_out = pairs(held_out=False), pairs(held_out=True)
    sorts = {
        "one": ("one", 200, seen),
        "held out": ("one", 100, held_out),
        "two, by places": ("places", 75, seen),
        "two, by relation": ("relation", 75, seen),
        "counts": ("count", 50, seen),
    }
    return {
        name: fresh_scenes(kind, max(1, round(count * scale)), things, SEED)
        for name, (kind, count, things) in sorts.items()
    }


def paint(
    model: ImageDiffusionModel, scenes: list[Scene], scheduler: str, steps: int, guidance: float
) -> Arm:
    """A picture of each scene, in batches of 16, seeds from `SEED` on."""
    images: list[Image.Image] = []
    began = time.monotonic()
    for start in track(range(0, len(scenes), BATCH), description=scheduler, transient=True):
        part = scenes[start : start + BATCH]
        images += model.prompt_to_img(
            [prompt_of(scene) for scene in part],
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seeds=list(range(SEED + start, SEED + start + len(part))),
            scheduler=scheduler,
            progress=False,
        )
    return Arm(scenes, images, time.monotonic() - began)


def shuffled(arm: Arm) -> Score:
    """The score of each picture against the prompt of the next."""
    return score([*arm.scenes[1:], arm.scenes[0]], arm.images)


def row(name: str, count: int, result: Score) -> str:
    """A line of the table: each share with its standard error."""
    cells = [
        f"{100 * share:5.1f} ± {100 * math.sqrt(share * (1 - share) / count):3.1f}"
        for share in (result.background, result.colour, result.place, result.shape, result.all)
    ]
    return f"{name:<26}{count:>5}  " + "  ".join(cells)


def figures(arms: dict[str, Arm]) -> dict[str, float]:
    """The benchmark's figures from one sampler's arms."""
    one, held_out = (score(arms[name].scenes, arms[name].images) for name in ("one", "held out"))
    two = score(
        [scene for name in arms if name.startswith("two") for scene in arms[name].scenes],
        [image for name in arms if name.startswith("two") for image in arms[name].images],
    )
    count = score(arms["counts"].scenes, arms["counts"].images)
    painted, seconds = (
        sum(len(arm.images) for arm in arms.values()),
        sum(arm.seconds for arm in arms.values()),
    )
    return {
        "background": one.background,
        "colour": one.colour,
        "place": one.place,
        "shape": one.shape,
        "one_all": one.all,
        "two_all": two.all,
        "count_all": count.all,
        "held_out_all": held_out.all,
        "held_out_gap": one.all - held_out.all,
        "shuffled_all": shuffled(arms["one"]).all,
        "images_per_s": painted / seconds,
    }


def main() -> None:
    """Paint, read, and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description="How far the built-in model `shapes` obeys its prompts.")
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="a pipeline folder (default: the built-in's)"
    )
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the 500 prompts (default: all)")
    parser.add_argument("--sheet", type=Path, help="save the first pictures of each sort here")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder = chosen.model.resolve()
    model = load_model(str(folder), folder_revision(folder), "fp32", "cpu")

    results: dict[str, dict[str, float]] = {}
    print(f"{'':<26}{'n':>5}   background        colour         place         shape           all")
    for scheduler in ("DDIM", "LMS"):
        # The first batch pays for allocations that later ones do not.
        paint(
            model, fresh_scenes("one", BATCH, pairs(held_out=False), SEED + 1), scheduler, 2, chosen.guidance
        )
        arms = {
            name: paint(model, scenes, scheduler, chosen.steps, chosen.guidance)
            for name, scenes in scenes_by_sort(chosen.scale).items()
        }
        for name, arm in arms.items():
            print(row(f"{scheduler} {name}", len(arm.images), score(arm.scenes, arm.images)))
        print(row(f"{scheduler} one, shuffled", len(arms["one"].images), shuffled(arms["one"])))
        results[scheduler] = figures(arms)
        print(f"{scheduler}: {results[scheduler]['images_per_s']:.1f} images/s, batches of {BATCH}, 1 thread")
        if chosen.sheet is not None and scheduler == "DDIM":
            save_sheet(arms, chosen.sheet)
    rounded = {
        name: {key: round(value, 4) for key, value in values.items()} for name, values in results.items()
    }
    print(json.dumps({**rounded["DDIM"], "lms": rounded["LMS"]}))


def save_sheet(arms: dict[str, Arm], path: Path) -> None:
    """Save the first 12 pictures of each sort, a sort a row."""
    sheet = Image.new("RGB", (12 * SIZE, len(arms) * SIZE), "white")
    for down, arm in enumerate(arms.values()):
        for across, image in enumerate(arm.images[:12]):
            sheet.paste(image, (across * SIZE, down * SIZE))
    sheet.save(path)


if __name__ == "__main__":
    main()
