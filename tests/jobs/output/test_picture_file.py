"""Real files of Pillow's, whole and damaged: what they say of themselves."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from jobs.output.picture_file import read_picture
from jobs.request import ImageRequest
from worker.encode import encode

FORMS = ("png", "jpeg", "webp", "lossless webp")


def a_request(form="png", prompt='a "red" fox, été 🦊 <&>\n\x01'):
    name, quality = form.rpartition(" ")[2], 100 if form.startswith("lossless") else 90
    return ImageRequest(
        prompt=prompt, seed=3, model="m", revision="r", height=48, width=72, image_format=name,
        image_quality=quality,
    )  # fmt: skip


def a_file(form="png", **request):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    return encode(pixels, a_request(form, **request))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_shows_its_format_size_and_request(form):
    picture = read_picture(a_file(form))
    assert (picture.image_format, picture.width, picture.height) == (form.rpartition(" ")[2], 72, 48)
    assert picture.request == a_request(form)


@pytest.mark.parametrize("prompt", ["plain", "", "x" * 10_000, "ÿ latin", "日本"])
@pytest.mark.parametrize("form", FORMS)
def test_prompts_of_every_kind_are_read_back(form, prompt):
    assert read_picture(a_file(form, prompt=prompt)).request == a_request(form, prompt)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_off_anywhere_gives_its_request_none_or_an_error(form):
    data = a_file(form)
    for size in [*range(0, len(data), 37), len(data) - 1]:
        try:
            assert read_picture(data[:size]).request in {a_request(form), None}
        except ValueError as error:
            damaged = f"is a damaged {a_request(form).image_format.upper()}"
            assert str(error) in ({"is no PNG, JPEG or WebP", damaged} if size else {"is empty"})


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_that_another_program_saved_holds_no_request(form):
    buffer = io.BytesIO()
    name = a_request(form).image_format
    # EXIF makes a WebP state its size in the header, as ours do.
    with Image.open(io.BytesIO(a_file(form))) as image:
        image.save(
            buffer, name, exif=image.getexif(), **({"pnginfo": None} if name == "png" else {"xmp": b""})
        )
    picture = read_picture(buffer.getvalue())
    assert (picture.width, picture.height, picture.request) == (72, 48, None)


def test_a_request_that_is_no_request_is_none():
    request = a_request("png", "plain")
    data = a_file("png", prompt="plain")
    assert read_picture(data).request == request
    text = request.to_json().encode()
    broken = b'["plain"]'.ljust(len(text))
    at = data.index(text)
    start = data.rindex(b"tEXt", 0, at)
    chunk = data[start:at] + broken
    changed = data[:start] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[at + len(text) + 4 :]
    assert read_picture(changed).request is None


def test_what_is_no_picture_is_reported():
    with pytest.raises(ValueError, match="is empty"):
        read_picture(b"")
    with pytest.raises(ValueError, match="is no PNG, JPEG or WebP"):
        read_picture(b"GIF89a, say")
