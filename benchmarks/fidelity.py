"""How far the built-in model `shapes` obeys its prompts, as the checker reads its pictures.

    python benchmarks/fidelity.py [--model FOLDER] [--guidance 3] [--steps 20] [--toy | --full]

900 prompts of fixed seeds, painted with DDIM and with LMS in batches of 16 on one torch thread. 500 say all
there is to say: 200 of one thing, 100 of one thing whose colour and shape the UNet never saw together, 150 of
two things (half by places, half by relations), 50 of two to four equal things. 400 of all these kinds leave
something open: half of them one word ("a heart in the middle on a pink background"), half all but the shapes
and where several things stand ("a heart", "two hearts"). Shares are in per cent, with their standard errors
and Wilson's 95 % intervals. The shuffled controls read the same pictures against other prompts of their own
sort: what chance would score. Rates are of wall time, text and decoding included. The last line is JSON:
DDIM's figures, LMS's beneath `lms`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from sizes import parse_sized

# A script's own folder is on the path, the repository's is not: the grammar and the checker are in tools/.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.model_files.model_folder import folder_revision
from tools.shapes.checker import Reading, read
from tools.shapes.draw import SIZE
from tools.shapes.grammar import KINDS, Scene, bare, loosened, pairs, prompt_of
from tools.shapes.score import Score, fresh_scenes, score_readings, wilson
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.pipelines import load_model

BATCH: Final = 16
MODEL: Final = Path(__file__).resolve().parents[1] / "worker" / "models" / "shapes"
SEED: Final = 20_000
"""Of the noise; far from the seeds that training looked at. The small world's prompts themselves recur."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Scenes of one sort, their pictures by one sampler, what these show, and the seconds painting took."""

    scenes: list[Scene]
    images: list[Image.Image]
    readings: list[Reading]
    seconds: float


def scenes_by_sort(scale: float) -> dict[str, list[Scene]]:
    """The benchmark's prompts by sort: 900 at scale 1, at least two of each, for the shuffled controls."""
    seen, rng = pairs(held_out=False), random.Random(SEED)

    def fresh(kind: str, count: int, things: list[tuple[str, str]] = seen, seed: int = SEED) -> list[Scene]:
        return fresh_scenes(kind, max(2, round(count * scale)), things, seed)

    return {
        "one": fresh("one", 200),
        "held out": fresh("one", 100, pairs(held_out=True)),
        "two, by places": fresh("places", 75),
        "two, by relation": fresh("relation", 75),
        "counts": fresh("count", 50),
        "a word open": [loosened(scene, rng) for kind in KINDS for scene in fresh(kind, 50, seed=SEED + 1)],
        "bare shapes": [bare(scene) for kind in KINDS for scene in fresh(kind, 50, seed=SEED + 2)],
    }


def paint(
    model: ImageDiffusionModel,
    scenes: list[Scene],
    scheduler: str,
    steps: int,
    guidance: float,
    batch_size: int | None,
) -> Arm:
    """A picture of each scene, in batches of 16, seeds from `SEED` on."""
    images: list[Image.Image] = []
    began = time.monotonic()
    for start in track(
        range(0, len(scenes), BATCH), description=scheduler, transient=True, console=Console(stderr=True)
    ):
        part = scenes[start : start + BATCH]
        images += model.prompt_to_img(
            [prompt_of(scene) for scene in part],
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            seeds=list(range(SEED + start, SEED + start + len(part))),
            scheduler=scheduler,
            batch_size=batch_size,
            progress=False,
        )
    seconds = time.monotonic() - began
    return Arm(scenes, images, [read(image) for image in images], seconds)


def shuffled(arm: Arm) -> Arm:
    """Each picture with the prompt of the next one."""
    return replace(arm, scenes=[*arm.scenes[1:], arm.scenes[0]])


def judged(*arms: Arm) -> Score:
    """The score of some arms together."""
    return score_readings(
        [scene for arm in arms for scene in arm.scenes], [reading for arm in arms for reading in arm.readings]
    )


def line(name: str, arm: Arm) -> str:
    """A line of the table: each share with its standard error and its interval, rounded outwards."""
    count, cells = len(arm.images), []
    for share in astuple(judged(arm)):
        error = math.sqrt(share * (1 - share) / count)
        low, high = wilson(share, count)
        interval = f"{math.floor(100 * low)}–{math.ceil(100 * high)}"
        cells.append(f"{100 * share:5.1f} ±{100 * error:3.1f} {interval:<6}")
    return f"{name:<26}{count:>4}  {'  '.join(cells)}".rstrip()


def figures(arms: dict[str, Arm]) -> dict[str, float]:
    """The benchmark's figures from one sampler's arms."""
    one, held_out = judged(arms["one"]), judged(arms["held out"])
    two = [arms["two, by places"], arms["two, by relation"]]
    painted = sum(len(arm.images) for arm in arms.values())
    return {
        "background": one.background,
        "colour": one.colour,
        "place": one.place,
        "shape": one.shape,
        "one_all": one.all,
        "two_all": judged(*two).all,
        "count_all": judged(arms["counts"]).all,
        "held_out_all": held_out.all,
        "held_out_gap": one.all - held_out.all,
        "open_all": judged(arms["a word open"]).all,
        "bare_all": judged(arms["bare shapes"]).all,
        "shuffled_all": judged(shuffled(arms["one"])).all,
        "two_shuffled_all": judged(*map(shuffled, two)).all,
        "count_shuffled_all": judged(shuffled(arms["counts"])).all,
        "open_shuffled_all": judged(shuffled(arms["a word open"])).all,
        "bare_shuffled_all": judged(shuffled(arms["bare shapes"])).all,
        "images_per_s": painted / sum(arm.seconds for arm in arms.values()),
    }


def main() -> None:
    """Paint, read, and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description="How far the built-in model `shapes` obeys its prompts.")
    parser.add_argument(
        "--model", type=Path, default=MODEL, help="a pipeline folder (default: the built-in's)"
    )
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--batch-size", type=int, help="of a forward (default: what a batch needs)")
    parser.add_argument("--sheet", type=Path, help="save the first pictures of each sort here")
    chosen = parse_sized(parser, scale=(0.005, 0.6, 1.0), steps=(4, 20, 20))
    torch.set_num_threads(1)
    folder = chosen.model.resolve()
    model = load_model(str(folder), folder_revision(folder), "fp32", "cpu")

    results: dict[str, dict[str, float]] = {}
    for scheduler in ("DDIM", "LMS"):
        # The first batch pays for allocations that later ones do not.
        paint(
            model,
            fresh_scenes("one", BATCH, pairs(held_out=False), SEED + 1),
            scheduler,
            2,
            chosen.guidance,
            chosen.batch_size,
        )
        arms = {
            name: paint(model, scenes, scheduler, chosen.steps, chosen.guidance, chosen.batch_size)
            for name, scenes in scenes_by_sort(chosen.scale).items()
        }
        results[scheduler] = figures(arms)
        heads = "".join(f"{head:<19}" for head in ("background", "colour", "place", "shape", "all"))
        print(f"\n{scheduler}, {chosen.steps} steps, guidance {chosen.guidance:g}")
        print(f"{'':<26}{'n':>4}  {heads.rstrip()}")
        for name, arm in arms.items():
            print(line(name, arm))
        for name, arm in arms.items():
            print(line(f"{name}, shuffled", shuffled(arm)))
        print(f"{results[scheduler]['images_per_s']:.1f} images/s, batches of {BATCH}, 1 thread")
        if chosen.sheet is not None and scheduler == "DDIM":
            save_sheet(arms, chosen.sheet)
    rounded = {
        name: {key: round(value, 4) for key, value in values.items()} for name, values in results.items()
    }
    print(json.dumps({**rounded["DDIM"], "lms": rounded["LMS"]}))


def save_sheet(arms: dict[str, Arm], path: Path) -> None:
    """Save the first 12 pictures of each sort, a sort a line."""
    sheet = Image.new("RGB", (12 * SIZE, len(arms) * SIZE), "white")
    for down, arm in enumerate(arms.values()):
        for across, image in enumerate(arm.images[:12]):
            sheet.paste(image, (across * SIZE, down * SIZE))
    sheet.save(path)


if __name__ == "__main__":
    main()
