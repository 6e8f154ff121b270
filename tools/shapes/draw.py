"""Draws a scene: 64x64 pixels, flat colours, smooth edges, and small chances in place, size and tilt."""

from __future__ import annotations

import math
import random
from typing import Final

from PIL import Image, ImageDraw

from tools.shapes.grammar import BACKGROUNDS, COLOURS, PLACES, SHAPES, Scene, Thing

SIZE: Final = 64
CENTRES: Final = (16, 32, 48)
"""Pixels of the three columns' and the three rows' middles."""

PAINT: Final = {
    "red": (222, 40, 44),
    "orange": (246, 134, 24),
    "yellow": (252, 214, 32),
    "green": (38, 152, 68),
    "blue": (36, 84, 214),
    "purple": (136, 48, 172),
    "brown": (126, 78, 44),
    "black": (24, 24, 28),
}
PAPER: Final = {
    "white": (250, 250, 250),
    "gray": (186, 188, 192),
    "pink": (252, 196, 212),
    "mint": (178, 236, 204),
    "sky": (168, 216, 250),
    "lavender": (212, 194, 244),
}
_SUPERSAMPLING = 4
_HALF = {"circle": 12.5, "square": 11.0, "triangle": 13.5, "star": 14.0, "heart": 13.0, "cross": 13.0}
_MOVE, _GROW, _TILT = 1.5, 0.06, 5.0
"""The chances: pixels each way, a share of the size, degrees; never enough to change what is said."""


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """The picture of `scene`, RGB 64x64; `rng` settles what the prompt leaves open, and the small chances."""
    background = rng.choice(BACKGROUNDS) if scene.background is None else scene.background
    side = SIZE * _SUPERSAMPLING
    image = Image.new("RGB", (side, side), PAPER[background])
    pen = ImageDraw.Draw(image)
    # Drawn once for all: equal things of a count stay equal where their colour or shape is left open.
    colour, shape = rng.choice(COLOURS), rng.choice(SHAPES)
    for thing in scene.things:
        settled = colour if thing.colour is None else thing.colour
        form = shape if thing.shape is None else thing.shape
        column, row = PLACES[rng.choice(list(PLACES)) if thing.place is None else thing.place]
        x, y = (CENTRES[at] + rng.uniform(-_MOVE, _MOVE) for at in (column, row))
        half = _HALF[form] * rng.uniform(1 - _GROW, 1 + _GROW)
        polygon = outline(form, x, y, half, rng.uniform(-_TILT, _TILT))
        pen.polygon([(u * _SUPERSAMPLING, v * _SUPERSAMPLING) for u, v in polygon], PAINT[settled])
    return image.reduce(_SUPERSAMPLING)


def draw_crowd(rng: random.Random) -> Image.Image:
    """A picture with a thing of its own kind in each corner: four times the edges to learn from."""
    things = tuple(
        Thing(rng.choice(COLOURS), rng.choice(SHAPES), place) for place in PLACES if place.count(" ") == 3
    )
    return draw(Scene(things, None), rng)


def outline(shape: str, x: float, y: float, half: float, tilt: float) -> list[tuple[float, float]]:
    """The polygon of `shape` about (x, y), in pixels: `half` half its width, `tilt` clockwise, in degrees."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return [(x + half * (u * cos - v * sin), y + half * (u * sin + v * cos)) for u, v in _UNIT[shape]]


def _round(function: str) -> list[tuple[float, float]]:
    turns = [2 * math.pi * n / 96 for n in range(96)]
    if function == "circle":
        return [(math.cos(t), math.sin(t)) for t in turns]
    heart = [
        (
            16 * math.sin(t) ** 3,
            -13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t),
        )
        for t in turns
    ]
    return [(x / 16, (y - 2.5) / 16) for x, y in heart]


def _star() -> list[tuple[float, float]]:
    radii = [1.0 if n % 2 == 0 else 0.45 for n in range(10)]
    return [
        (r * math.sin(math.pi * n / 5), 0.06 - r * math.cos(math.pi * n / 5)) for n, r in enumerate(radii)
    ]


def _cross(arm: float) -> list[tuple[float, float]]:
    corner = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    turned = [[(x, y), (-y, x), (-x, -y), (y, -x)] for x, y in corner]
    return [turned[n][quarter] for quarter in range(4) for n in range(3)]


_UNIT: Final = {
    "circle": _round("circle"),
    "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
    "triangle": [(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)],
    "star": _star(),
    "heart": _round("heart"),
    "cross": _cross(0.34),
}
"""Outlines within about -1 .. 1 of their middles, y downwards."""
