"""Paints with LoRAs at some strengths, and says how much of a style and of the prompts pictures show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image

from tools.shapes.grammar import Scene, pairs, prompt_of
from tools.shapes.score import Score, fresh_scenes, score
from tools.shapes.small import smallness
from tools.shapes.stripes import filled, stripedness

FIGURES: Final[Mapping[str, Callable[[Image.Image], float]]] = {
    "striped": stripedness,
    "small": smallness,
}
"""How much a picture has of a style, 0 .. 1."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What pictures at one strength of the LoRA show."""

    scale: float
    style: float
    """The mean of the style's figure, 0 .. 1."""
    obeyed: Score
    """How much of their prompts, as the checker reads the pictures with their gaps filled."""


def figures_of(style: str, scale: float, scenes: Sequence[Scene], images: Sequence[Image.Image]) -> Figures:
    """What `images`, painted of `scenes` at `scale`, show of the style and of the scenes."""
    measured = [FIGURES[style](image) for image in images]
    return Figures(scale, sum(measured) / len(measured), score(scenes, [filled(image) for image in images]))


def scenes_to_paint(count: int) -> list[Scene]:
    """The same `count` fresh scenes each time: half of one thing, half of two things or of a count."""
    things = pairs(held_out=False)
    one, two, many = (fresh_scenes(kind, count, things, seed=11) for kind in ("one", "relation", "count"))
    return [[one, two, one, many][n % 4][n] for n in range(count)]


def paint_at(pipeline: Any, adapters: Mapping[str, float], scenes: Sequence[Scene]) -> list[Image.Image]:
    """A picture of each scene from seeds 0, 1, 2 ..., by diffusers: 20 steps at guidance 3, 16 in a batch.

    adapters: strengths of LoRAs that the pipeline has loaded, by their names.
    """
    pipeline.set_progress_bar_config(disable=True)
    if adapters:
        pipeline.set_adapters(list(adapters), list(adapters.values()))
    images: list[Image.Image] = []
    for start in range(0, len(scenes), 16):
        part = scenes[start : start + 16]
        images += pipeline(
            [prompt_of(scene) for scene in part],
            height=64,
            width=64,
            num_inference_steps=20,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(start + n) for n in range(len(part))],
        ).images
    return images


def sheet_of(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """The pictures, a row each, in one picture."""
    side = rows[0][0].width
    sheet = Image.new("RGB", (side * max(map(len, rows)), side * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (side * x, side * y))
    return sheet
