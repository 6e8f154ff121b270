"""Trains an example LoRA for the built-in model: python -m tools.train_lora --style striped --out DIR

First a copy of the VAE's encoder learns latents by which the frozen decoder draws the style (the "eye",
kept in DIR). Then a LoRA of the UNet learns to paint them, at half of its strength as well. The results are
in jobs/examples/loras. Below are means of 48 prompts (small: of 32), 20 DDIM steps, guidance 3; the shares
are what the checker reads in pictures whose gaps between stripes are filled.

    striped, rank 8, 244 kB; 4 + 5 minutes of one CPU core; the figure is `stripedness`
    scale   figure   background   colour   place   form
      0      0.02       100 %      100 %    98 %   92 %
      0.5    0.16       100 %       96 %   100 %   65 %
      1      0.47       100 %       81 %    94 %   21 %

    small (--style small --eye-steps 0 --steps 300 --pictures 2048 --rank 4), 127 kB; 2 minutes; `smallness`
      0      0.02       100 %      100 %    97 %   94 %
      0.5    0.13       100 %      100 %   100 %   78 %
      1      0.24       100 %       97 %   100 %   62 %

Stripes lose forms on purpose: what lies between them is bare. Most of their colours that are wrong are
numbers that are wrong: a stripe that is too far from its thing is read as one more.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict

from tools.shapes.progress import changed, digest, load_checkpoint, save_checkpoint, say
from tools.shapes.style_figures import figures_of, paint_at, scenes_to_paint, sheet_of
from tools.shapes.train_style import STYLES, make_lessons, train_eye, train_style

_ROOT: Final = Path(__file__).resolve().parents[1]
_SCALES: Final = (0.0, 0.5, 1.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, and measure through diffusers: the figures are the last line that is printed."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_lora",
        description="Train a LoRA of the built-in model that draws things in a style.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    out_help = "folder for STYLE.safetensors, and for STYLE.png: a row of pictures for each strength"
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help=out_help)
    add("--style", choices=STYLES, default="striped", help="what to draw things as")
    add("--model", type=Path, default=_ROOT / "worker" / "models" / "shapes", help="pipeline folder")
    add("--seed", type=int, default=0, help="of everything random; a seed gives the same file each time")
    add("--rank", type=int, default=8, help="of each layer's matrices")
    add("--eye-steps", type=int, default=800, help="of 16 drawings, to learn the style's latents")
    add("--steps", type=int, default=800, help="of 64 latents, to learn the LoRA")
    add("--pictures", type=int, default=4096, help="drawn to learn from")
    add("--measure", type=int, default=48, help="prompts to measure with, at each strength")
    add("--threads", type=int, default=torch.get_num_threads(), help="torch's CPU threads")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    pipeline = StableDiffusionPipeline.from_pretrained(chosen.model, dtype=torch.float32)
    eye = kept_eye(pipeline.vae, chosen)
    lessons = make_lessons(pipeline.vae, eye, chosen.style, chosen.pictures, chosen.seed)
    train_style(pipeline, lessons, chosen.rank, chosen.steps, chosen.seed)
    save(pipeline.unet, chosen.out / f"{chosen.style}.safetensors")
    measure(chosen)


def kept_eye(vae: Any, chosen: argparse.Namespace) -> Any:
    """The VAE's copy that sees the style: the folder's when it was made from the same, else a new one."""
    path = chosen.out / f"{chosen.style}.eye.pt"
    settings = f"{chosen.style} {chosen.eye_steps} {chosen.seed}"
    made_from = {"VAE": digest(*vae.state_dict().values()), "style, number of steps or seed": settings}
    kept = load_checkpoint(path)
    if kept is None or changed(kept, made_from):
        eye = train_eye(vae, chosen.style, chosen.eye_steps, chosen.seed)
        save_checkpoint(path, {"eye": eye.state_dict(), "made_from": made_from})
        return eye
    say("eye", f"{path} is there: skipped")
    eye = copy.deepcopy(vae)
    eye.load_state_dict(kept["eye"])
    return eye


def save(unet: Any, path: Path) -> None:
    """Write the UNet's LoRA in half precision, as diffusers' training scripts do."""
    layers = {name: tensor.half() for name, tensor in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(path.parent, layers, weight_name=path.name)
    say("LoRA", f"{path}, {path.stat().st_size:,} bytes")


def measure(chosen: argparse.Namespace) -> None:
    """Paint with the saved file at each strength, save the sheet, and print the figures."""
    pipeline = StableDiffusionPipeline.from_pretrained(chosen.model, dtype=torch.float32)
    pipeline.load_lora_weights(
        chosen.out, weight_name=f"{chosen.style}.safetensors", adapter_name=chosen.style
    )
    scenes = scenes_to_paint(chosen.measure)
    rows = [paint_at(pipeline, {chosen.style: scale}, scenes) for scale in _SCALES]
    sheet_of([row[:24] for row in rows]).save(chosen.out / f"{chosen.style}.png")
    seen = [figures_of(chosen.style, scale, scenes, row) for scale, row in zip(_SCALES, rows, strict=True)]
    print(json.dumps([asdict(figures) for figures in seen]))


if __name__ == "__main__":
    main()
