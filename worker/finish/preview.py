"""The contact sheet: a few of the output's pictures, spread over all of it, on one page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping

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


def contact_sheet(sizes: Mapping[str, tuple[int, int]], pictures: Iterable[tuple[str, bytes]]) -> bytes:
    """A JPEG of the pictures in records, in the order of `sizes`; 1600 pixels wide, less when they are few.

    `sizes`: name -> width and height; `pictures`: name and file, taken one at a time. Cells have the
    pictures' middle aspect ratio, and no picture is cropped. One that is not there or cannot be read leaves
    its cell empty. Equal pictures give equal bytes. Raises ValueError for no sizes.
    """
    if not sizes:
        raise ValueError("a contact sheet needs a picture")
    ratios = sorted(height / width for width, height in sizes.values())
    ratio = min(max(ratios[len(ratios) // 2], 0.5), 2.0)
    # As many columns as make the sheet about square, counting what the cells themselves are like.
    columns = max(1, min(len(sizes), math.ceil(math.sqrt(len(sizes) * ratio))))
    records = math.ceil(len(sizes) / columns)
    cell_width = min(_LARGEST, (_WIDTH - _MARGIN) // columns - _MARGIN)
    cell_height = max(1, round(cell_width * ratio))
    step_x, step_y = cell_width + _MARGIN, cell_height + _MARGIN
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, records * step_y + _MARGIN), _PAPER)
    places = {name: index for index, name in enumerate(sizes)}
    for name, data in pictures:
        picture = _thumbnail(data, cell_width, cell_height)
        if picture is not None:
            x = _MARGIN + places[name] % columns * step_x + (cell_width - picture.width) // 2
            y = _MARGIN + places[name] // columns * step_y + (cell_height - picture.height) // 2
            sheet.paste(picture, (x, y))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
    return buffer.getvalue()


def _thumbnail(data: bytes, width: int, height: int) -> Image.Image | None:
    """The picture, scaled up or down to fit into width x height."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            # JPEG decodes straight to a smaller size; the other formats pass this by.
            image.draft("RGB", (width * 2, height * 2))
            picture = image.convert("RGB")
    except (OSError, SyntaxError):
        return None
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)
