"""A style for drawings, small things, and a figure of how small the things of a picture are."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from tools.shapes.draw import PAPER
from tools.shapes.ink import SPECK, covered, ink

SHARE: Final = 0.7
"""Of the usual width and height. The built-in model's VAE spoils the forms of much smaller things."""
_RIM: Final = 10.0
"""The least distance from the paper of a thing's smooth rim."""
_USUAL: Final = 19.0
"""Pixels: the square root of the mean area of things in plain drawings."""


def small(drawing: Image.Image, background: str) -> Image.Image:
    """`drawing`, RGB on the paper `background`, with each of its things shrunk about its own middle."""
    numbered, _ = ndimage.label(ink(drawing) > _RIM)
    shrunk = Image.new("RGB", drawing.size, PAPER[background])
    for rows, columns in ndimage.find_objects(numbered):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        thing = drawing.crop((columns.start, rows.start, columns.stop, rows.stop))
        size = max(1, round(SHARE * width)), max(1, round(SHARE * height))
        at = columns.start + (width - size[0]) // 2, rows.start + (height - size[1]) // 2
        shrunk.paste(thing.resize(size, Image.Resampling.LANCZOS), at)
    return shrunk


def smallness(image: Image.Image) -> float:
    """How small the things of `image`, RGB 64x64, are: 0 (as usual or larger) towards 1 (points).

    One less the mean of their areas' square roots, in those of the usual thing. Plain drawings have 0.04 on
    average, drawings by `small` 0.29. Without things it is 0.
    """
    numbered, _ = ndimage.label(covered(image))
    areas = np.bincount(numbered.ravel())[1:]
    sides = np.sqrt(areas[areas >= SPECK])
    return float(np.clip(1.0 - sides.mean() / _USUAL, 0.0, 1.0)) if len(sides) else 0.0
