"""Texts drawn on pages of pictures: in Pillow's own font, or in one of the user's."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont


def load_font(size: int, file: Path | None = None) -> Font:
    """A font of `size` pixels: Pillow's own, or that of a .ttf, .otf or .ttc.

    It is laid out alike wherever Pillow is built with FreeType, as its wheels are. Raises OSError for a file
    that holds no font.
    """
    if file is not None:
        return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    font = ImageFont.load_default(size)
    if not isinstance(font, Font):
        raise ImportError("this Pillow was built without FreeType: install the wheel from PyPI")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def line_height(font: Font) -> int:
    """Pixels from one line to the next."""
    ascent, descent = font.getmetrics()
    return ascent + descent


def drawable(text: str, font: Font) -> str:
    """The text on one line; what the font has no glyph of becomes the letter without its accent, or `?`."""
    none = _glyph(font, "\U0010ffff")

    def drawn(character: str) -> str:
        for other in (character, unicodedata.normalize("NFKD", character)[0]):
            if other == " " or _glyph(font, other) != none:
                return other
        return "?"

    words = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(map(drawn, words))


def wrapped(text: str, most: int, width: float, font: Font) -> list[str]:
    """The text on up to `most` lines of so many pixels, broken between words if possible, cut with `…`."""
    lines: list[str] = []
    while text and len(lines) < most:
        last = len(lines) == most - 1
        fits = _fitting(text, width, font)
        if fits == len(text):
            lines.append(text)
            break
        if last:
            fits = _fitting(text, width - font.getlength("…"), font)
            lines.append(text[:fits].rstrip() + "…")
            break
        at = text.rfind(" ", 1, fits + 1)
        at = fits if at < 0 else at
        lines.append(text[:at])
        text = text[at:].lstrip()
    return lines


def _glyph(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _fitting(text: str, width: float, font: Font) -> int:
    """How many characters of the text's beginning are at most so many pixels wide; at least one."""
    lengths = range(1, len(text) + 1)
    return max(1, bisect_right(lengths, width, key=lambda length: font.getlength(text[:length])))
