from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from tools.shapes.plot import plot
from tools.shapes.progress import log

SHARES = ("colour", "place", "shape", "one_all", "places_all", "relation_all", "count_all")


def test_loss_and_looks_share_one_end_though_the_last_look_is_missing(tmp_path: Path) -> None:
    for samples in (1000, 2000, 3000, 4000):
        log(tmp_path, "unet", step=samples // 10, samples=samples, loss=1.0)
    for samples in (1000, 2000):
        log(tmp_path, "look", step=samples // 10, samples=samples, **dict.fromkeys(SHARES, 0.5))
    plot(tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    axes = pixels[:, 48:611]
    losses, looks = (
        np.nonzero((half == ImageColor.getrgb(ink)).all(axis=-1).any(axis=0))[0]
        for half, ink in ((axes[:260], "#c92a2a"), (axes[260:], "#0c8599"))
    )
    assert abs(losses.max() / (axes.shape[1] - 1) - 1.0) < 0.01
    assert abs(looks.max() / (axes.shape[1] - 1) - 0.5) < 0.01


def test_a_run_without_a_look_has_its_loss_plotted(tmp_path: Path) -> None:
    for samples in (1000, 2000):
        log(tmp_path, "unet", step=samples // 10, samples=samples, loss=1.0)
    plot(tmp_path)
    assert Image.open(tmp_path / "curves.png").size == (720, 520)
