"""The drawing of a grid's pages, with labels or plain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, UnidentifiedImageError

from jobs.errors import JobError, OutputError
from jobs.lettering import Font, drawable, line_height, load_font, wrapped
from producer.export.grid_layout import GridPicture, Page

_PAPER, _EMPTY, _EDGE = (250, 250, 248), (238, 238, 235), (222, 222, 218)
_INK, _PALE_INK = (36, 36, 34), (120, 120, 114)
_LEAST, _SMALL = 64, 256
"""The longest side of a picture in a labelled grid, in pixels: at least; and smaller ones are enlarged."""
_MOST_PIXELS, _MOST_SIDE = 40_000_000, 16_000
"""Of a labelled page's pictures together: viewers warn or refuse beyond some 90 million."""
_MOST_PLAIN = 80_000_000
_READ = 2000
"""Characters of a text that are looked at: more than fit."""


@dataclass(frozen=True, slots=True)
class Lettering:
    """The fonts of a page."""

    file: Path | None
    """None for Pillow's own."""
    replaced: set[str] = field(default_factory=set)
    """Characters that were drawn as others, since the font has no glyph of them."""

    @classmethod
    def of(cls, file: Path | None) -> Lettering:
        """Raises JobError for a file that holds no font."""
        try:
            load_font(12, file)
        except OSError as error:
            raise JobError(
                f"--font {file}: cannot be read as a font ({error}): name a .ttf, .otf or .ttc"
            ) from None
        return cls(file)

    def font(self, size: int) -> Font:
        """The font in this size, in pixels."""
        return load_font(size, self.file)

    def lines(self, text: str, most: int, width: float, font: Font) -> list[str]:
        """The text as it can be drawn, on up to `most` lines of so many pixels."""
        plain = " ".join(text[:_READ].split())
        drawn = drawable(plain, font)
        self.replaced.update(character for character in plain if character not in drawn)
        return wrapped(drawn, most, width, font)


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines of text in a font, as they will be drawn."""

    lines: list[str]
    font: Font
    ink: tuple[int, int, int]

    @property
    def width(self) -> int:
        return max((round(self.font.getlength(line)) for line in self.lines), default=0)

    @property
    def height(self) -> int:
        return len(self.lines) * line_height(self.font)

    def draw(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], across: float, down: float
    ) -> None:
        """Draws it into a box of left, top, width and height; `across` and `down`: 0 for its left and upper
        edge, 1 for the other, 0.5 between."""
        left, top, width, height = box
        y = top + round((height - self.height) * down)
        for line in self.lines:
            x = left + round((width - self.font.getlength(line)) * across)
            draw.text((x, y), line, fill=self.ink, font=self.font)
            y += line_height(self.font)


def scale_of(pages: Sequence[Page], largest: tuple[int, int]) -> float:
    """How large the pictures of all labelled pages are drawn.

    Small ones are enlarged a whole number of times; all are made smaller where a page would be too large.
    `largest`: width and height of a cell that holds any of them. Raises OutputError where they would be tiny.
    """
    width, height = largest
    scale = float(max(1, _SMALL // max(largest)))
    for page in pages:
        across, down = page.columns * width, page.rows * height
        scale = min(scale, _MOST_SIDE / across, _MOST_SIDE / down, (_MOST_PIXELS / (across * down)) ** 0.5)
    if max(largest) * scale < min(_LEAST, max(largest)):
        large = max(pages, key=lambda page: page.columns * page.rows)
        raise OutputError(
            f"a page would have {large.columns:,} x {large.rows:,} pictures, too small to see: name an axis "
            "with fewer values, or leave some out by --page or --only-current"
        )
    return scale


def draw_page(page: Page, size: tuple[int, int], lettering: Lettering, waiting: Path, file: Path) -> None:
    """Writes a labelled page as PNG.

    `size`: of a cell, in pixels. `waiting`: the folder of the pictures, each called by its place in the
    source. Raises OSError, and OutputError for a picture that cannot be read.
    """
    sheet = _Sheet(page, size, lettering)
    for one, place in zip(page.pictures, page.places, strict=True):
        sheet.paste(_opened(one, waiting), place)
    sheet.image.save(file, "PNG")


def draw_plain(page: Page, waiting: Path, file: Path) -> None:
    """Writes a page of pictures alone as PNG, side by side in their own size, which must be the same."""
    first = _opened(page.pictures[0], waiting)
    width, height = first.size
    if page.columns * width * page.rows * height > _MOST_PLAIN:
        raise OutputError(
            f"a plain page would have {page.columns * width:,} x {page.rows * height:,} pixels, which "
            "programs refuse to read: give it fewer pictures by --page, or leave out --plain"
        )
    image = Image.new("RGB", (page.columns * width, page.rows * height))
    for one, (column, row) in zip(page.pictures, page.places, strict=True):
        picture = _opened(one, waiting)
        if picture.size != first.size:
            raise OutputError(
                f"{one.called} has {picture.width}x{picture.height} pixels, and the first of "
                f"its page {width}x{height}: a plain page takes one size: leave out --plain"
            )
        image.paste(picture, (column * width, row * height))
    image.save(file, "PNG")


def _opened(one: GridPicture, waiting: Path) -> Image.Image:
    """The picture; where it is transparent, with the page's colour behind it."""
    try:
        with Image.open(waiting / str(one.position)) as image:
            if not image.has_transparency_data:
                return image.convert("RGB")
            paper = Image.new("RGBA", image.size, (*_PAPER, 255))
            return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    except (SyntaxError, UnidentifiedImageError) as error:
        raise OutputError(f"{one.called}: cannot be read as a picture ({error})") from None


class _Sheet:
    """A labelled page that is being drawn: everything but the pictures is there at first."""

    def __init__(self, page: Page, cell: tuple[int, int], lettering: Lettering) -> None:
        width, height = cell
        size = min(max(width // 16, 13), 24)
        font, small = lettering.font(size), lettering.font(max(round(size * 0.8), 12))
        margin, self._gap = size * 2, max(8, min(width, height) // 40)
        self._page, self._width, self._height = page, width, height

        def block(text: str, most: int, wide: float, font: Font, ink: tuple[int, int, int]) -> _Block:
            return _Block(lettering.lines(text, most, wide, font) if text else [], font, ink)

        fit = max(1, height // line_height(font))
        row_labels = [
            block(text, fit, max(width, 160), font, _INK) for text in (page.y.labels if page.y else ())
        ]
        row_name = block(page.y.name if page.y else "", 2, max(width, 160), small, _PALE_INK)
        left = max((one.width for one in (*row_labels, row_name)), default=0)
        self._left = margin + (left + size if left else 0)
        inner = page.columns * (width + self._gap) - self._gap
        whole = self._left - margin + inner
        heading = block(page.heading, 6, max(whole, 320), lettering.font(round(size * 1.3)), _INK)
        shared = block(page.shared, 4, max(whole, 320), small, _PALE_INK)
        column_name = block(page.x.name if page.x else "", 1, inner, small, _PALE_INK)
        column_labels = [block(text, 4, width, font, _INK) for text in (page.x.labels if page.x else ())]
        captions = [block(text, 4, width, small, _PALE_INK) for text in page.captions]
        header = max((one.height for one in (*column_labels, row_name)), default=0)
        caption = max((one.height for one in captions), default=0)
        self._step = height + self._gap + (caption + self._gap if caption else 0)

        top = margin
        head_top = top
        top += heading.height
        shared_top = top + (size // 3 if heading.height and shared.height else 0)
        top = shared_top + shared.height
        if top > margin:
            top += size
        name_top = top
        top += column_name.height + (size // 3 if column_name.height else 0)
        label_top = top
        self._top = top + header + (size // 2 if header else 0)

        bottom = self._top + page.rows * self._step - self._gap
        right = max(self._left + inner, margin + max(heading.width, shared.width))
        self.image = Image.new("RGB", (right + margin, bottom + margin), _PAPER)
        draw = ImageDraw.Draw(self.image)
        heading.draw(draw, (margin, head_top, whole, heading.height), 0, 0)
        shared.draw(draw, (margin, shared_top, whole, shared.height), 0, 0)
        column_name.draw(draw, (self._left, name_top, inner, column_name.height), 0.5, 0)
        for column, one in enumerate(column_labels):
            one.draw(draw, (self._corner((column, 0))[0], label_top, width, header), 0.5, 1)
        # Prompts of several lines read better from the left.
        across = 0 if any(len(one.lines) > 1 for one in row_labels) else 1
        for row, one in enumerate(row_labels):
            one.draw(draw, (margin, self._corner((0, row))[1], left, height), across, 0.5)
        row_name.draw(draw, (margin, label_top, left, header), across, 1)
        for place, one in zip(page.places, captions, strict=False):
            x, y = self._corner(place)
            one.draw(draw, (x, y + height + self._gap // 2, width, caption), 0, 0)
        if page.x or page.y:
            empty = block("no picture", 2, width, small, _PALE_INK)
            for place in sorted(
                {(x, y) for x in range(page.columns) for y in range(page.rows)} - {*page.places}
            ):
                x, y = self._corner(place)
                draw.rectangle((x, y, x + width - 1, y + height - 1), _EMPTY)
                empty.draw(draw, (x, y, width, height), 0.5, 0.5)

    def paste(self, picture: Image.Image, place: tuple[int, int]) -> None:
        """Draws a picture in its place, scaled to fit."""
        scale = min(self._width / picture.width, self._height / picture.height)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        x, y = self._corner(place)
        x, y = x + (self._width - size[0]) // 2, y + (self._height - size[1]) // 2
        # An edge around it, for pictures that are as white as the page.
        ImageDraw.Draw(self.image).rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=_EDGE)
        self.image.paste(picture, (x, y))

    def _corner(self, place: tuple[int, int]) -> tuple[int, int]:
        """The left upper corner of a cell, by its column and row."""
        return self._left + place[0] * (self._width + self._gap), self._top + place[1] * self._step
