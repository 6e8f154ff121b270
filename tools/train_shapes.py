"""Trains the built-in model `shapes` from nothing: python -m tools.train_shapes --out DIR

Stages, in order: vae (with the gate), latents, unet, export, evaluate; the tokenizer is made from the
grammar each time. Everything is kept in DIR, and a run that was stopped goes on from its last checkpoint when
it is given --resume. The model goes to DIR/model, in diffusers' layout. Lengths are in steps, so a slow
machine gets the same model as a fast one, only later.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from tools.shapes.evaluate import evaluate
from tools.shapes.export import export
from tools.shapes.grammar import words
from tools.shapes.plot import plot
from tools.shapes.tokenizer import build_tokenizer
from tools.shapes.train_unet import load_averaged, make_latents, train_unet
from tools.shapes.train_vae import finished_vae, train_vae

STAGES: Final = ("vae", "latents", "unet", "export", "evaluate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_shapes", description="Train the model `shapes`."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and the model")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in the folder")
    parser.add_argument("--vae-steps", type=int, default=2800, help="of 16 pictures (default: %(default)s)")
    parser.add_argument("--unet-steps", type=int, default=6500, help="of 64 pictures (default: %(default)s)")
    parser.add_argument(
        "--pictures", type=int, default=32768, help="drawn for the UNet (default: %(default)s)"
    )
    parser.add_argument(
        "--hard-pictures", type=int, default=16384, help="more of them (default: %(default)s)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch's CPU threads (default: torch's own choice)")
    parser.add_argument("--allow-bad-vae", action="store_true", help="let a VAE that fails the gate through")
    chosen = parser.parse_args(arguments)
    folder, stages, device = chosen.out, chosen.stage or STAGES, torch.device(chosen.device)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in ("vae.pt", "unet.pt") if (folder / name).exists()]
    if kept and not chosen.resume:
        parser.error(
            f"--out {folder}: holds {' and '.join(kept)} of an earlier run: give --resume or another folder"
        )

    tokenizer = build_tokenizer(words())
    if "vae" in stages:
        train_vae(folder, chosen.vae_steps, device)
    vae = finished_vae(folder, device, gated=not chosen.allow_bad_vae)
    if "latents" in stages or "unet" in stages:
        latents, scenes = make_latents(vae, folder, chosen.pictures, chosen.hard_pictures)
        if "unet" in stages:
            train_unet(vae, tokenizer, latents, scenes, chosen.pictures, folder, chosen.unet_steps, device)
            plot(folder)
    if "export" in stages:
        export(vae, tokenizer, *load_averaged(tokenizer, folder, device), folder / "model")
    if "evaluate" in stages:
        evaluate(folder / "model")


if __name__ == "__main__":
    main()
