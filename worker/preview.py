"""The contact sheet: a few of the output's pictures, spread over all of it, on one page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

MOST = 100
"""Pictures on a sheet at most."""

_WIDTH = 1600
_LARGEST = 480
_MARGIN = 6
_PAPER = (246, 246, 244)


def spread(total: int, most: int = MOST) -> list[int]:
    """Up to `most` indices out of 0 .. total - 1, evenly spaced, the first among them."""
    count = min(total, most)
    return [i * total // count for i in range(count)]


def contact_sheet(files: Sequence[Path]) -> bytes:
    """A JPEG of the pictures in rows, in their order; 1600 pixels wide, less when they are few.

    Cells have the pictures' middle aspect ratio, and no picture is cropped. A file that cannot be read
    leaves its cell empty. Equal files give equal bytes. Raises ValueError for no files.
    """
    if not files:
        raise ValueError("a contact sheet needs a picture")
    sizes = [size for file in files if (size := _size(file)) is not None]
    ratios = sorted(height / width for width, height in sizes)
    ratio = min(max(ratios[len(ratios) // 2], 0.5), 2.0) if ratios else 1.0
    # As many columns as make the sheet about square, counting what the cells themselves are like.
    columns = max(1, min(len(files), math.ceil(math.sqrt(len(files) * ratio))))
    rows = math.ceil(len(files) / columns)
    cell_width = min(_LARGEST, (_WIDTH - _MARGIN) // columns - _MARGIN)
    cell_height = max(1, round(cell_width * ratio))
    step_x, step_y = cell_width + _MARGIN, cell_height + _MARGIN
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN), _PAPER)
    for index, file in enumerate(files):
        picture = _thumbnail(file, cell_width, cell_height)
        if picture is not None:
            x = _MARGIN + index % columns * step_x + (cell_width - picture.width) // 2
            y = _MARGIN + index // columns * step_y + (cell_height - picture.height) // 2
            sheet.paste(picture, (x, y))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
    return buffer.getvalue()


def _size(file: Path) -> tuple[int, int] | None:
    try:
        with Image.open(file) as image:
            return image.size
    except OSError:
        return None


def _thumbnail(file: Path, width: int, height: int) -> Image.Image | None:
    """The picture, scaled up or down to fit into width x height."""
    try:
        with Image.open(file) as image:
            # JPEG decodes straight to a smaller size; the other formats pass this by.
            image.draft("RGB", (width * 2, height * 2))
            picture = image.convert("RGB")
    except (OSError, SyntaxError):
        return None
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)
