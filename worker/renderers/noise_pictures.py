"""Pictures of noise, from which is learned how images share forwards that begin with pictures."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.errors import InputError
from jobs.inputs.latents import Latents

_SIDE = 64
"""Pixels; all that ask get the size that is painted."""


class NoisePictures:
    """Inputs in which every hash stands for another picture of noise, of which a part is white."""

    def latents(self, sha256: str) -> Latents:
        """None are here."""
        raise InputError(f"{sha256}: there are pictures alone")

    def contents(self, sha256: str) -> bytes:
        """A PNG file: the same for a hash every time."""
        noise = np.random.default_rng(int(sha256[:16], 16)).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
        noise[: _SIDE // 2] = 255  # as a mask, it masks some and keeps some
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "png", compress_level=1)
        return file.getvalue()

    def private_copy(self, sha256: str) -> AbstractContextManager[Path]:
        """None are here."""
        raise InputError(f"{sha256}: there are pictures alone")


NOISE_PICTURES = NoisePictures()


def noise_picture(setting: str, number: int) -> str:
    """A hash for a setting: another for another setting or number."""
    return f"{sum(setting.encode()):012x}{number:04x}".ljust(64, "0")
