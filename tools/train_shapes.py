"""Trains the built-in model `shapes` from nothing: python -m tools.train_shapes --out DIR

The stages, in order: tokenizer, VAE, gate, latents, UNet, export, evaluate. All but the first, which takes a
moment, keep their results in DIR. With --resume, a stage whose result is there is skipped, and a training
that was stopped goes on from its last checkpoint. The model goes to DIR/model, in diffusers' layout. Lengths
are in steps, so a slow machine gets the same model as a fast one, only later.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import torch

from tools.shapes.evaluate import evaluate
from tools.shapes.export import export
from tools.shapes.grammar import words
from tools.shapes.plot import plot
from tools.shapes.progress import say
from tools.shapes.tokenizer import build_tokenizer
from tools.shapes.train_unet import load_averaged, make_lessons, train_unet
from tools.shapes.train_vae import gated_vae, train_vae

STAGES: Final = ("tokenizer", "VAE", "gate", "latents", "UNet", "export", "evaluate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages, up to the one that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_shapes",
        description=f"Train the model `shapes`. The stages: {', '.join(STAGES)}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    out_help = "folder for checkpoints, logs and the model"
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help=out_help)
    add("--resume", action="store_true", help="go on in a folder of an earlier run: skip what is there")
    add("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    add("--vae-steps", type=at_least_1, default=2800, help="of 16 pictures")
    add("--unet-steps", type=at_least_1, default=6500, help="of 64 latents")
    add("--save-every", type=at_least_1, default=100, help="steps from checkpoint to checkpoint")
    add("--look-every", type=at_least_1, default=500, help="steps from one look at what it can to the next")
    add("--gate-pictures", type=at_least_1, default=500, help="drawn for the gate")
    add("--pictures", type=at_least_1, default=32768, help="drawn for the UNet")
    add("--hard-pictures", type=at_least_1, default=16384, help="more of them, of two things at their places")
    add("--scale", type=float, default=1.0, help="share of the benchmark's prompts to evaluate with")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    add("--threads", type=at_least_1, default=torch.get_num_threads(), help="torch's CPU threads")
    add("--allow-bad-vae", action="store_true", help="let a VAE that fails the gate through")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.resume and any(chosen.out.iterdir()):
        parser.error(f"--out {chosen.out}: is not empty: give --resume to go on there, or another folder")
    for stage in run(chosen):
        if stage == chosen.until:
            break


def run(chosen: argparse.Namespace) -> Iterator[str]:
    """Run stage after stage; yields the name of each, in the order of `STAGES`, when its result is there."""
    folder, device = chosen.out, torch.device(chosen.device)
    tokenizer = build_tokenizer(words())
    say("tokenizer", f"{len(tokenizer)} tokens, made of the grammar's {len(words())} words each time")
    yield "tokenizer"
    every = {"save_every": chosen.save_every, "look_every": chosen.look_every}
    train_vae(folder, chosen.vae_steps, device, **every)
    yield "VAE"
    vae = gated_vae(folder, device, chosen.gate_pictures, chosen.allow_bad_vae)
    yield "gate"
    lessons = make_lessons(vae, folder, chosen.pictures, chosen.hard_pictures)
    yield "latents"
    train_unet(vae, tokenizer, lessons, folder, chosen.unet_steps, device, **every)
    plot(folder)
    yield "UNet"
    export(vae, tokenizer, *load_averaged(tokenizer, folder, device), folder / "model")
    yield "export"
    evaluate(folder / "model", chosen.scale)
    yield "evaluate"


def at_least_1(text: str) -> int:
    """An option's whole number, 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


if __name__ == "__main__":
    main()
