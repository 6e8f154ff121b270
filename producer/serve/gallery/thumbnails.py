"""Small pictures for pages: the one place where the pages decode a picture.

A file may be anyone's: its format, its size and its pixels are bounded before anything is decoded. What
cannot be decoded becomes a placeholder, so that a page is whole. A few are decoded at a time, however many
browsers ask: each takes the memory of its picture.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Hashable
from threading import BoundedSemaphore
from typing import Final, NamedTuple

from PIL import Image

from producer.serve.gallery.bounded_cache import BoundedCache

SIDE: Final = 320
"""Pixels of a thumbnail's longer side at most; smaller pictures stay as they are."""
_MOST_PIXELS: Final = 50_000_000
"""Of a picture that is decoded: the largest that imagemill renders has 16 million."""
_MOST_BYTES: Final = 128 << 20
_CACHED: Final = 12 << 20
"""Bytes of thumbnails that are held: some hundreds."""
_AT_A_TIME: Final = 2
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_QUALITY: Final = 82
# What Pillow finds odd about a picture would stand on the server's standard error each time that it is shown.
# For the process: threads draw at once, and a filter for one of them would be taken back by another.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Thumbnail(NamedTuple):
    """A small picture as a file."""

    data: bytes
    media_type: str
    damaged: bool = False
    """Whether it is a placeholder."""


def draw(data: bytes) -> Thumbnail:
    """The thumbnail of a PNG, JPEG or WebP file; a placeholder for what is none, or damaged, or too large."""
    try:
        if len(data) > _MOST_BYTES:
            return PLACEHOLDER
        picture = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            return PLACEHOLDER
        if max(width, height) <= SIDE:
            return _whole(picture, data)
        # A JPEG is decoded at an eighth, a quarter or a half of its size already.
        picture.draft("RGB", (SIDE, SIDE))
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return _encoded(picture)
    except Exception:  # Pillow raises of damaged files whatever its decoders meet, an IndexError too
        return PLACEHOLDER


def _whole(picture: Image.Image, data: bytes) -> Thumbnail:
    """A small picture: its own file where that is small, too."""
    picture.load()  # a damaged one is found here
    if len(data) <= 64 << 10:
        return Thumbnail(data, f"image/{str(picture.format).lower()}")
    return _encoded(picture)


def _encoded(picture: Image.Image) -> Thumbnail:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return Thumbnail(file.getvalue(), "image/jpeg")


def _placeholder() -> Thumbnail:
    return Thumbnail(
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        b'<rect width="64" height="64" fill="#88888833"/>'
        b'<path d="M20 20 44 44M44 20 20 44" stroke="#888" stroke-width="4" stroke-linecap="round"/></svg>',
        "image/svg+xml",
        damaged=True,
    )


PLACEHOLDER: Final = _placeholder()
"""A cross, in place of a picture that cannot be shown."""


class Thumbnails:
    """Draws thumbnails, and holds those that were asked for last. Threads may share it."""

    def __init__(self) -> None:
        self._drawing = BoundedSemaphore(_AT_A_TIME)
        self._cache: BoundedCache[Thumbnail] = BoundedCache(_CACHED, lambda one: len(one.data) + 200)

    def held(self, key: Hashable) -> Thumbnail | None:
        """The thumbnail called `key`, if it is held."""
        return self._cache.get(key)

    def draw(self, data: bytes, key: Hashable | None) -> Thumbnail:
        """The thumbnail of a picture's file, held as `key` if that is given and it is no placeholder."""
        with self._drawing:
            made = draw(data)
        if key is not None and not made.damaged:
            self._cache.put(key, made)
        return made


def media_type(data: bytes) -> str:
    """What a browser is told that a picture's file is; bytes that are no picture are shown by none."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"
