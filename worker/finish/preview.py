"""The contact sheet: some of the output's pictures with their prompts, spread over all of it, on a page."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from jobs.lettering import Font, drawable, line_height, load_font, wrapped

MOST = 100
"""Pictures on a sheet at most."""

_WIDTH = 1600
_LARGEST = 480
_MARGIN = 6
_GAP = 2
_PAPER = (246, 246, 244)
_INK, _PALE_INK = (40, 40, 38), (115, 115, 110)
_PROMPT_LINES = 2
_READ = 300
"""Characters of a prompt that are looked at: more than fit on its lines."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of the sheet: its size in pixels, and what its caption says."""

    file_name: str
    width: int
    height: int
    prompt: str
    id: str | None = None
    """The user's."""


def spread(total: int, most: int = MOST) -> list[int]:
    """Up to `most` indices out of 0 .. total - 1, evenly spaced, the first among them."""
    count = min(total, most)
    return [i * total // count for i in range(count)]


def contact_sheet(cells: Sequence[Cell], pictures: Iterable[tuple[str, bytes]]) -> bytes:
    """A JPEG of the pictures in the order of `cells`, captioned; 1600 pixels wide or less.

    `pictures`: file name and file, taken one at a time. Cells have the pictures' middle aspect ratio, and no
    picture is cropped. One that is not there or cannot be read leaves its cell empty. A caption is two lines
    of the prompt, cut with "…", then the user's id. Pillow's own font draws little more than ASCII: an
    accented letter is drawn without its accent, and `?` stands for any other character. Equal pictures and
    captions give equal bytes with the same Pillow. Raises ValueError for no cells.
    """
    if not cells:
        raise ValueError("a contact sheet needs a picture")
    grid = _grid(cells)
    size = (grid.columns * grid.step_x + _MARGIN, grid.rows * grid.step_y + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    corners = {
        cell.file_name: (_MARGIN + i % grid.columns * grid.step_x, _MARGIN + i // grid.columns * grid.step_y)
        for i, cell in enumerate(cells)
    }
    for name, data in pictures:
        picture = _thumbnail(data, grid.width, grid.height)
        if picture is not None:
            x, y = corners[name]
            x, y = x + (grid.width - picture.width) // 2, y + (grid.height - picture.height) // 2
            sheet.paste(picture, (x, y))
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        x, y = corners[cell.file_name]
        _write_caption(draw, (x, y + grid.height + _GAP), cell, grid)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Grid:
    """How the sheet is divided, in pixels."""

    columns: int
    rows: int
    width: int
    height: int
    """The height of a cell, without its caption."""
    caption: int
    """The height of a caption."""
    font: Font

    @property
    def step_x(self) -> int:
        return self.width + _MARGIN

    @property
    def step_y(self) -> int:
        return self.height + self.caption + _MARGIN


def _grid(cells: Sequence[Cell]) -> _Grid:
    """The fewest columns that make the sheet at most a fifth taller than it is wide."""
    ratios = sorted(cell.height / cell.width for cell in cells)
    ratio = min(max(ratios[len(ratios) // 2], 0.5), 2.0)
    lines = _PROMPT_LINES + any(cell.id is not None for cell in cells)
    for columns in range(1, len(cells) + 1):
        rows = math.ceil(len(cells) / columns)
        width = min(_LARGEST, (_WIDTH - _MARGIN) // columns - _MARGIN)
        font = load_font(min(max(width // 13, 11), 18))
        caption = _GAP + lines * line_height(font) + _MARGIN
        grid = _Grid(columns, rows, width, max(1, round(width * ratio)), caption, font)
        if rows * grid.step_y <= 1.2 * columns * grid.step_x:
            break
    return grid


def _write_caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: Cell, grid: _Grid) -> None:
    x, y = corner
    for text, most, ink in ((cell.prompt, _PROMPT_LINES, _INK), (cell.id or "", 1, _PALE_INK)):
        for line in wrapped(drawable(text[:_READ], grid.font), most, grid.width, grid.font):
            draw.text((x, y), line, fill=ink, font=grid.font)
            y += line_height(grid.font)


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
