"""Trains the example ControlNet for the built-in model: python -m tools.train_controlnet --out DIR

It learns from white edges on black (`tools.shapes.edges.edges`; Canny's are alike) where things are and
which forms they have. A step takes about 0.6 s of one CPU core. The one in jobs/examples/controlnets/edges,
4.2 MB in fp16, is the average at step 1,200 of a run of 4,500, which was stopped there, before its rate
decays: 12 minutes of a core. Of 96 fresh drawings, 20 DDIM steps, guidance 3: "form" asks for as many
things as the edges have, of their forms, where they are (overlap of 0.75 or more); "overlap" is the mean
intersection over union.

    prompts                                 form   overlap
    name neither form nor place             95 %      0.91
    name other forms and another place      83 %      0.89

The loss was still falling: more steps will give more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline

from tools.shapes.progress import say
from tools.shapes.train_edges import export, make_lessons, obedience, train_edges

_ROOT: Final = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, export and measure; an --out of an earlier run goes on from its last checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_controlnet",
        description="Train a ControlNet by which edges say where a thing is and which form it has.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    out_help = "folder for checkpoints, logs and the ControlNet (DIR/edges); a run in it goes on"
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help=out_help)
    add("--model", type=Path, default=_ROOT / "worker" / "models" / "shapes", help="pipeline folder")
    add("--steps", type=int, default=4000, help="of 64 drawings")
    add("--pictures", type=int, default=16384, help="drawn to learn from")
    add("--look-every", type=int, default=500, help="steps from one look at what it can to the next")
    add("--measure", type=int, default=200, help="fresh drawings to measure with, for each kind of prompt")
    add("--threads", type=int, default=torch.get_num_threads(), help="torch's CPU threads")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(chosen.model, dtype=torch.float32)
    lessons = make_lessons(pipeline.vae, chosen.pictures)
    say("lessons", f"{len(lessons.scenes)} drawings, their edges and latents")
    train_edges(pipeline, lessons, chosen.out, chosen.steps, chosen.look_every)
    export(pipeline.unet, chosen.out, chosen.out / "edges")
    controlnet = ControlNetModel.from_pretrained(chosen.out / "edges", dtype=torch.float32)
    kinds = ("open", "false", "whole")
    seen = {kind: asdict(obedience(pipeline, controlnet, chosen.measure, kind)) for kind in kinds}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
