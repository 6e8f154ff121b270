"""A style for drawings, stripes, and a figure of how striped a picture is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tools.shapes.draw import PAPER, SIZE
from tools.shapes.ink import FOREGROUND, SPECK, covered, ink

PERIOD: Final = 12
"""Pixels from a stripe's top to the next one's; the built-in model's VAE cannot draw much finer ones."""
_BAR: Final = 6
"""Rows of paint of each period; in the others, the paper shows through."""
_FIRST: Final = 5
"""The first stripe's top row. One lies across the picture's middle: no gap joins things above and below."""


def striped(drawing: Image.Image, background: str) -> Image.Image:
    """`drawing`, RGB 64x64 on the paper `background`, with its things cut into level stripes."""
    pixels = np.array(drawing, dtype=np.uint8)
    pixels[_gaps()] = PAPER[background]
    return Image.fromarray(pixels)


def stripedness(image: Image.Image) -> float:
    """How striped the things of `image`, RGB 64x64, are: 0 (one even paint) to 1 (paint and bare paper).

    The contrast (a - b) / (a + b) of the mean paint a of rows that are stripes and b of rows between them,
    over the things with their gaps closed; the stripes' phase is the one that gives most. Plain drawings have
    0.05 or less, drawings by `striped` 0.9 or more. Without things it is 0.
    """
    distances = ink(image)
    # Without the rim, where paint and paper blend, which has more of some rows than of others.
    whole = ndimage.binary_erosion(_closed(distances > FOREGROUND), structure=np.ones((1, 3)))
    rows, paint = whole.sum(axis=1), (distances * whole).sum(axis=1)
    best = 0.0
    for phase in range(PERIOD):
        bar = (np.arange(SIZE) - phase) % PERIOD < _BAR
        if rows[bar].any() and rows[~bar].any():
            a, b = paint[bar].sum() / rows[bar].sum(), paint[~bar].sum() / rows[~bar].sum()
            best = max(best, float((a - b) / (a + b)))
    return best


def filled(image: Image.Image) -> Image.Image:
    """`image`, RGB 64x64, with the gaps between stripes painted over, for the checker to read.

    Each gap gets the colour of the nearest paint. A plain drawing stays nearly as it is.
    """
    pixels, solid = np.array(image.convert("RGB")), covered(image)
    inside = ndimage.binary_erosion(solid)
    deep = inside if inside.any() else solid
    nearest = ndimage.distance_transform_edt(~deep, return_distances=False, return_indices=True)
    gaps = _closed(solid) & ~deep
    pixels[gaps] = pixels[tuple(nearest)][gaps]
    return Image.fromarray(pixels)


def _gaps() -> NDArray[np.bool_]:
    """Which rows of a picture lie between stripes."""
    return (np.arange(SIZE) - _FIRST) % PERIOD >= _BAR


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`mask` without the stripes' gaps and without holes, and without islands too small to be things."""
    tall = np.ones((PERIOD - _BAR + 3, 1), dtype=bool)
    bridged = _cut(ndimage.binary_closing(_padded(mask), structure=tall))
    # A row more each way: a painted gap has no sharp ends.
    bare = ndimage.binary_dilation(_gaps())
    closed = ndimage.binary_fill_holes(mask | bridged & bare[:, None])
    numbered, _ = ndimage.label(closed)
    big = np.bincount(numbered.ravel()) >= SPECK
    big[0] = False
    kept: NDArray[np.bool_] = big[numbered]
    return kept


def _padded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.pad(mask, PERIOD)


def _cut(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask[PERIOD:-PERIOD, PERIOD:-PERIOD]
