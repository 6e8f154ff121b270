import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.errors import OutputError, RenderError
from jobs.output.metadata import parameters_text
from jobs.request import ImageRequest
from worker.encode import SUFFIXES, encode, is_flat, read_request

FORMATS = ["png", "jpeg", "webp"]
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(40)[None] * 5, np.arange(24)[:, None] * 9, 77), -1).astype(
    np.uint8
)
REQUEST = ImageRequest(prompt="a fox", seed=1, model="m", revision="r", height=24, width=40)


def written(folder, pixels, request):
    path = folder / f"x{SUFFIXES[request.image_format]}"
    path.write_bytes(encode(pixels, request))
    return path


def user_comment(image):
    return image.getexif().get_ifd(0x8769)[0x9286]


@pytest.mark.parametrize("image_format", FORMATS)
def test_equal_pixels_and_requests_give_equal_bytes(image_format):
    request = replace(REQUEST, image_format=image_format)
    assert encode(NOISE, request) == encode(NOISE.copy(), replace(request))


def test_png_and_webp_at_100_keep_every_pixel(tmp_path):
    for request in (REQUEST, replace(REQUEST, image_format="webp", image_quality=100)):
        with Image.open(written(tmp_path, NOISE, request)) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), NOISE)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_quality_says_how_close_a_lossy_picture_is(tmp_path, image_format):
    errors = []
    for quality in (30, 95):
        request = replace(REQUEST, image_format=image_format, image_quality=quality)
        with Image.open(written(tmp_path, SMOOTH, request)) as image:
            assert image.format == image_format.upper()
            errors.append(np.abs(np.asarray(image.convert("RGB")).astype(int) - SMOOTH).mean())
    assert errors[1] < 3
    assert errors[1] < errors[0]


def test_a_jpeg_keeps_the_colours_at_full_resolution(tmp_path):
    with Image.open(written(tmp_path, SMOOTH, replace(REQUEST, image_format="jpeg"))) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def test_png_text_is_a1111s_and_the_request(tmp_path):
    for prompt in ("plain", "naïve 狐 🦊\nsecond line"):
        request = replace(REQUEST, prompt=prompt)
        with Image.open(written(tmp_path, NOISE, request)) as image:
            assert set(image.info) == {"parameters", "imagemill"}
            assert image.info["parameters"] == parameters_text(request)
            assert json.loads(image.info["imagemill"])["prompt"] == prompt


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_exif_holds_the_parameters_as_a1111s_readers_take_them(tmp_path, image_format):
    request = replace(REQUEST, prompt="naïve 狐 🦊\nsecond", image_format=image_format)
    with Image.open(written(tmp_path, NOISE, request)) as image:
        comment = user_comment(image)
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == parameters_text(request)


def test_a_file_says_nothing_of_when_or_where_it_was_made():
    for image_format in FORMATS:
        data = encode(NOISE, replace(REQUEST, image_format=image_format))
        for mark in (b"tIME", b"DateTime", b"Software", b"Host"):
            assert mark not in data


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    negative=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    image_format=st.sampled_from(FORMATS),
)
@settings(max_examples=150, deadline=None)
def test_any_request_can_be_read_back_from_its_file(tmp_path_factory, prompt, negative, image_format):
    request = replace(REQUEST, prompt=prompt, negative_prompt=negative, image_format=image_format)
    assert read_request(written(tmp_path_factory.mktemp("e"), NOISE[:8, :8], request)) == request


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("prompt", ["", "￿￾\x01\x85", "<&\"'>", "🦊" * 10_000])
def test_odd_and_long_prompts_can_be_read_back(tmp_path, image_format, prompt):
    request = replace(REQUEST, prompt=prompt, image_format=image_format)
    assert read_request(written(tmp_path, NOISE, request)) == request


def test_a_prompt_too_long_for_a_jpeg_is_refused_with_the_remedy():
    with pytest.raises(RenderError, match="png or webp"):
        encode(NOISE, replace(REQUEST, prompt="x" * 40_000, image_format="jpeg"))


def test_files_without_a_request_are_refused_by_name(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    Image.fromarray(NOISE).save(tmp_path / "a.jpg", xmp=b"<x/>")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "c.png").write_bytes(encode(NOISE, REQUEST)[:200])
    for name in ("a.png", "a.jpg", "b.png", "c.png", "missing.png"):
        with pytest.raises(OutputError, match=name):
            read_request(tmp_path / name)


def test_one_flat_colour_is_told_from_a_picture():
    flat = np.full((8, 8, 3), (1, 2, 3), np.uint8)
    almost = flat.copy()
    almost[7, 7, 2] += 1
    assert is_flat(flat)
    assert not is_flat(almost)
    assert not is_flat(NOISE)
