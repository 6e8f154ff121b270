"""Figures in the configurations of models, which anyone may have written: 1e999 is JSON too."""

from __future__ import annotations

from typing import Final

MOST_FIGURE: Final = 1 << 20
"""No size, width or number of channels of a model is larger."""
MOST_BLOCKS: Final = 16
"""Nor has an autoencoder more blocks, each of which halves a picture."""


def whole_figure(value: object, most: int = MOST_FIGURE) -> int:
    """The whole number 1 .. `most` that a configuration says.

    Raises ValueError for any other number, TypeError for what is none.
    """
    if not isinstance(value, (int, float, str)):
        raise TypeError(f"{value!r} is no number")
    try:
        number = int(value)
    except OverflowError:
        raise ValueError("is no whole number") from None
    if not 1 <= number <= most:
        raise ValueError(f"is not 1 .. {most}")
    return number


def latent_scale(blocks: object, less: int = 1) -> int:
    """Pixels of a latent, each way, by the blocks that an autoencoder's configuration lists.

    Raises ValueError for more blocks than any has, TypeError for what is no list.
    """
    if not isinstance(blocks, (list, tuple)):
        raise TypeError("is no list of blocks")
    count = whole_figure(len(blocks), MOST_BLOCKS)
    return whole_figure(2.0 ** (count - less))
