"""Thumbnails: small, of any picture, and a placeholder for what is none."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from producer.serve.gallery.bounded_cache import BoundedCache
from producer.serve.gallery.thumbnails import PLACEHOLDER, SIDE, Thumbnails, draw, media_type


def picture(form: str, width: int, height: int) -> bytes:
    """A file of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(1024, 512), (400, 2000), (321, 321)])
def test_a_large_picture_becomes_a_small_one_of_its_proportions(form: str, width: int, height: int) -> None:
    made = draw(picture(form, width, height))
    small = Image.open(io.BytesIO(made.data))
    assert max(small.size) == SIDE
    assert abs(small.width / small.height - width / height) < 0.02
    assert made.media_type == "image/jpeg"
    assert len(made.data) < 120_000


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_small_picture_is_shown_as_it_is(form: str) -> None:
    data = picture(form, 64, 48)
    assert draw(data) == (data, f"image/{form.lower()}", False)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A piece of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_an_empty_profile() -> bytes:
    """A PNG of which Pillow raises an IndexError once its pixels are there."""
    data, end = picture("PNG", 8, 8), chunk(b"IEND", b"")
    return data.removesuffix(end) + chunk(b"iCCP", b"") + end


def bomb() -> bytes:
    """A PNG of few bytes that says it has 10^10 pixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"no picture", picture("PNG", 600, 600)[:5000], picture("JPEG", 64, 64)[:100], bomb(),
        picture("GIF", 8, 8), with_an_empty_profile(),
    ],
    ids=["nothing", "text", "half a PNG", "half a JPEG", "bomb", "GIF", "empty profile"],
)  # fmt: skip
def test_what_cannot_be_shown_becomes_a_placeholder(data: bytes) -> None:
    assert draw(data) == PLACEHOLDER


ODD = """
import warnings; warnings.resetwarnings()
import sys
from producer.serve.gallery.thumbnails import PLACEHOLDER, draw
print(draw(sys.stdin.buffer.read()) == PLACEHOLDER)
"""


def animated_without_frames() -> bytes:
    """A PNG that says it is an animation of no frame, of which Pillow warns."""
    data = picture("PNG", 400, 400)
    head = 8 + 25  # the signature and IHDR
    return data[:head] + chunk(b"acTL", struct.pack(">II", 0, 0)) + data[head:]


def test_an_odd_picture_is_shown_and_nothing_stands_on_standard_error() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", ODD], input=animated_without_frames(), capture_output=True,
        check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"False\n", b"")


def test_a_picture_of_too_many_pixels_is_not_decoded() -> None:
    file = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    assert draw(file.getvalue()) == PLACEHOLDER


def test_a_thumbnail_that_has_a_name_is_held_and_a_placeholder_is_not() -> None:
    thumbnails, whole = Thumbnails(), picture("PNG", 8, 8)
    for key, data in (("whole", whole), ("damaged", b"damaged"), (None, whole)):
        assert thumbnails.draw(data, key) == draw(data)
    held = thumbnails.held("whole")
    assert held is not None and held.data == whole
    assert thumbnails.held("damaged") is thumbnails.held("gone") is None


def test_a_cache_holds_a_bounded_number_of_bytes_and_forgets_the_oldest() -> None:
    cache: BoundedCache[bytes] = BoundedCache(10, len)
    for name in "abc":
        cache.put(name, b"1234")
        cache.get("a")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1234", None, b"1234")
    cache.put("a", b"12")
    cache.put("large", b"x" * 11)
    assert (cache.held, cache.get("large")) == (6, None)


def test_a_file_is_what_its_first_bytes_say() -> None:
    kinds = {form: media_type(picture(form, 8, 8)) for form in ("PNG", "JPEG", "WEBP")}
    assert kinds == {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
    assert media_type(b"<svg onload=alert(1)>") == "application/octet-stream"
