"""Where a picture has paint: how far its pixels are from the paper that it is on."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.shapes.draw import PAPER

FOREGROUND: Final = 45.0
"""As in the checker: the least distance (Euclidean, of 255) from the paper of what is a thing."""
SPECK: Final = 40
"""As in the checker: pixels; smaller islands are no things."""


def ink(image: Image.Image) -> NDArray[np.float64]:
    """How far each pixel of `image` is from the paper: float [H,W], 0 to 442."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    papers = np.array(list(PAPER.values()), dtype=np.float64)
    distances = np.linalg.norm(pixels[:, :, None] - papers, axis=-1)
    # The commonest paper, not the border's: things may touch the border.
    paper = np.bincount(distances.argmin(axis=-1).ravel(), minlength=len(papers)).argmax()
    nearest: NDArray[np.float64] = distances[:, :, paper]
    return nearest


def covered(image: Image.Image) -> NDArray[np.bool_]:
    """Where `image` has a thing, bool [H,W]: what is nearer to the usual paint than to the paper."""
    distances = ink(image)
    dark = distances > FOREGROUND
    covers: NDArray[np.bool_] = dark & (distances > np.median(distances[dark]) / 2) if dark.any() else dark
    return covers
