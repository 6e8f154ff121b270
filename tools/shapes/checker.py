"""Reads what a picture of the small world shows, by colours, outlines and middles; it is not trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.shapes.draw import CENTRES, PAINT, PAPER, SIZE, outline
from tools.shapes.grammar import PLACES, SHAPES, Scene, Thing

_PAPER_WITHIN, _PAINT_WITHIN = 24.0, 60.0
"""How far (Euclidean, of 255) a colour may lie from the one it is read as."""
_FOREGROUND = 45.0
"""The least distance from the paper of what is a thing."""
_SPECK = 40
"""Pixels; smaller islands are no things. A true thing has 220 or more."""
_OVERLAP = 0.75
"""Least intersection over union with a shape's outline; true drawings have 0.82 or more."""
_STRETCH = 1.25
"""How far the ratio of width to height may be from the shape's own."""
_OFF_CENTRE = 6.0
"""Pixels from a place's middle, each way."""

_GRID = 32


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows. None stands for a colour, shape or place that is none of the small world's."""

    background: str | None
    things: tuple[Thing, ...]
    """From the top left, row by row of the places' grid."""


def read(image: Image.Image) -> Reading:
    """What `image`, RGB 64x64, shows."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    if pixels.shape != (SIZE, SIZE, 3):
        raise ValueError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels: must be {SIZE}x{SIZE}")
    # The commonest paper colour, not the border's: things may touch the border.
    votes = [np.count_nonzero(_distance(pixels, rgb) < _PAPER_WITHIN) for rgb in PAPER.values()]
    background = list(PAPER)[int(np.argmax(votes))]
    if max(votes) < SIZE * SIZE // 4:
        return Reading(None, ())
    ink = _distance(pixels, PAPER[background])
    things = [
        _thing(pixels, mask)
        for island in _islands(ink > _FOREGROUND)
        # An edge lies half-way between paint and paper, whichever paint it is.
        for mask in _islands(island & (ink > np.median(ink[_inside(island)]) / 2))
    ]
    return Reading(background, tuple(sorted(things, key=_order)))


def shows(reading: Reading, scene: Scene) -> bool:
    """Whether a reading is all that `scene` asks for and nothing else; what the scene leaves open is free."""
    return (
        background_right(reading, scene)
        and len(reading.things) == len(scene.things)
        and any(all(map(fits, order, scene.things)) for order in permutations(reading.things))
    )


def background_right(reading: Reading, scene: Scene) -> bool:
    """Whether the background is the one that `scene` asks for, or any known one where it asks for none."""
    return reading.background is not None and scene.background in (None, reading.background)


def fits(seen: Thing, wanted: Thing) -> bool:
    """Whether a thing that was read is one that was asked for."""
    asked = ((wanted.colour, seen.colour), (wanted.shape, seen.shape), (wanted.place, seen.place))
    return all(is_seen is not None and want in (None, is_seen) for want, is_seen in asked)


def _islands(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    numbered, count = ndimage.label(mask)
    islands = [numbered == number for number in range(1, count + 1)]
    return [island for island in islands if np.count_nonzero(island) >= _SPECK]


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`mask` without its edge, where paint and paper blend; all of it when it is nothing but edge."""
    inside = ndimage.binary_erosion(mask, iterations=2)
    return inside if inside.any() else mask


def _thing(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> Thing:
    colour = np.median(pixels[_inside(mask)], axis=0)
    y, x = (float(places.mean()) + 0.5 for places in np.nonzero(mask))
    return Thing(_nearest(colour, PAINT, _PAINT_WITHIN), _shape(mask), _place(x, y))


def _nearest(
    colour: NDArray[np.float32], names: Mapping[str, tuple[int, int, int]], within: float
) -> str | None:
    distances = {name: math.dist(colour.tolist(), rgb) for name, rgb in names.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= within else None


def _place(x: float, y: float) -> str | None:
    for name, (column, row) in PLACES.items():
        if max(abs(x - CENTRES[column]), abs(y - CENTRES[row])) <= _OFF_CENTRE:
            return name
    return None


def _shape(mask: NDArray[np.bool_]) -> str | None:
    found, width = _boxed(mask)
    overlaps = {
        shape: max(
            np.count_nonzero(found & template) / np.count_nonzero(found | template)
            # A long rectangle, stretched to a square, would pass for one.
            if max(width / usual, usual / width) < _STRETCH
            else 0.0
            for template, usual in _templates(shape)
        )
        for shape in SHAPES
    }
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] >= _OVERLAP else None


@cache
def _templates(shape: str) -> list[tuple[NDArray[np.bool_], float]]:
    """`shape` at some tilts, cut to its box as `_boxed` does."""
    templates = []
    for tilt in (-6.0, -3.0, 0.0, 3.0, 6.0):
        image = Image.new("1", (256, 256))
        ImageDraw.Draw(image).polygon(outline(shape, 128, 128, 100, tilt), 1)
        templates.append(_boxed(np.asarray(image)))
    return templates


def _boxed(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """A mask cut to the box around it and stretched to a square, and the box's width by its height."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    stretched = Image.fromarray(cut.astype(np.uint8) * 255).resize((_GRID, _GRID), Image.Resampling.BILINEAR)
    return np.asarray(stretched) > 127, cut.shape[1] / cut.shape[0]


def _distance(pixels: NDArray[np.float32], rgb: tuple[int, int, int]) -> NDArray[np.float32]:
    distance: NDArray[np.float32] = np.sqrt(((pixels - np.asarray(rgb, np.float32)) ** 2).sum(axis=-1))
    return distance


def _order(thing: Thing) -> tuple[int, int]:
    column, row = PLACES[thing.place] if thing.place is not None else (9, 9)
    return row, column
