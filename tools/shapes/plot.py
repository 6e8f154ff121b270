"""Draws the curves of a training run: loss and fidelity over samples."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from tools.shapes.progress import read_log

_WIDTH, _HEIGHT, _MARGIN = 720, 260, 48
_INKS: Final = ("#c92a2a", "#1971c2", "#2f9e44", "#9c36b5", "#e8590c", "#343a40", "#0c8599")


def plot(folder: Path) -> None:
    """Write curves.png next to the logs in `folder`: the UNet's loss above, what it paints right below."""
    losses = {"loss": [(line["samples"], line["loss"]) for line in read_log(folder, "unet")]}
    looks = read_log(folder, "look")
    shares = {
        name: [(line["samples"], line[name]) for line in looks]
        for name in ("colour", "place", "shape", "one_all", "places_all", "relation_all", "count_all")
    }
    sheet = Image.new("RGB", (_WIDTH, 2 * _HEIGHT), "white")
    most = max((y for _, y in losses["loss"]), default=1.0)
    # One end for both: the last look may be further back than the last loss.
    last = max((x for curve in (losses | shares).values() for x, _ in curve), default=1.0)
    _axes(sheet, 0, losses, last, most)
    _axes(sheet, _HEIGHT, shares, last, 1.0)
    sheet.save(folder / "curves.png")


def _axes(
    sheet: Image.Image, top: int, curves: dict[str, list[tuple[float, float]]], last: float, most: float
) -> None:
    pen = ImageDraw.Draw(sheet)
    left, right, upper, lower = _MARGIN, _WIDTH - 110, top + 16, top + _HEIGHT - 28
    pen.rectangle((left, upper, right, lower), outline="#adb5bd")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = lower - share * (lower - upper)
        pen.line((left, y, right, y), fill="#e9ecef")
        pen.text((6, y - 6), f"{share * most:.2f}", fill="black")
        pen.text((left + share * (right - left) - 14, lower + 6), f"{share * last / 1000:.0f}k", fill="black")
    for number, ((name, curve), ink) in enumerate(zip(curves.items(), _INKS, strict=False)):
        points = [
            (left + x / last * (right - left), lower - min(1.0, y / most) * (lower - upper)) for x, y in curve
        ]
        if len(points) > 1:
            pen.line(points, fill=ink, width=2)
        pen.text((right + 8, upper + 16 * number), name, fill=ink)
