import bisect
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.errors import OutputError, RenderError
from jobs.output.jpeg_text import jpeg_trouble
from jobs.output.metadata import parameters_text
from jobs.output.picture_file import read_picture
from jobs.output.xmp import SOURCE_TYPE
from jobs.request import ImageRequest
from worker.encode import SUFFIXES, encode, is_flat, read_request

FORMATS = ["png", "jpeg", "webp"]
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(40)[None] * 5, np.arange(24)[:, None] * 9, 77), -1).astype(
    np.uint8
)
SEGMENTS = re.compile(rb"\xff\xe1..(?=Exif\0\0|http://ns.adobe.com/xap/1.0/\0)", re.DOTALL)
"""The heads of a JPEG's segments of EXIF and XMP."""
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
            assert set(image.info) - {"xmp"} == {"parameters", "imagemill", "XML:com.adobe.xmp"}
            assert image.info["parameters"] == parameters_text(request)
            assert json.loads(image.info["imagemill"])["prompt"] == prompt


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_exif_holds_the_parameters_as_a1111s_readers_take_them(tmp_path, image_format):
    request = replace(REQUEST, prompt="naïve 狐 🦊\nsecond", image_format=image_format)
    with Image.open(written(tmp_path, NOISE, request)) as image:
        comment = user_comment(image)
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == parameters_text(request)


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_file_says_in_xmp_that_an_algorithm_made_it(tmp_path, image_format):
    """In IPTC's words, as readers of XMP find them, and beside the request."""
    file = written(tmp_path, NOISE, replace(REQUEST, prompt="<&\"'> 狐", image_format=image_format))
    with Image.open(file) as image:
        packet = image.info["xmp"]
    root = ET.fromstring(packet)
    (said,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    iptc = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert said.attrib[f"{iptc}DigitalSourceType"] == SOURCE_TYPE
    assert read_picture(file.read_bytes()).source_type == SOURCE_TYPE
    assert SOURCE_TYPE == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_without_the_source_type_is_an_early_versions(image_format):
    request = replace(REQUEST, image_format=image_format)
    early, now = encode(NOISE, request, says_source=False), encode(NOISE, request)
    assert b"DigitalSourceType" not in early
    assert early != now
    assert read_picture(early).source_type is None
    assert read_picture(early).request == read_picture(now).request == request
    if image_format == "jpeg":
        before = (
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
            b'xmlns:imagemill="urn:imagemill:1" imagemill:request='
        )
        assert before in early


@given(
    prompt=st.text(st.sampled_from('a狐🦊"<\n'), max_size=3),
    repeated=st.integers(3_000, 12_000),
    says_source=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_fits_into_a_jpeg_is_known_without_writing_one(prompt, repeated, says_source):
    request = replace(REQUEST, prompt=prompt * repeated, image_format="jpeg")
    if jpeg_trouble(request, says_source=says_source) is None:
        data = encode(NOISE, request, says_source=says_source)
        assert read_picture(data).request == request
    else:
        with pytest.raises(RenderError, match="is too long for a JPEG"):
            encode(NOISE, request, says_source=says_source)


@pytest.mark.parametrize("letter", ["x", "狐", '"'])
def test_the_last_character_decides_whether_a_jpeg_takes_a_prompt(letter):
    """The sizes are those of the file's own segments, to the byte."""

    def trouble(length):
        return jpeg_trouble(replace(REQUEST, prompt=letter * length, image_format="jpeg"))

    longest = bisect.bisect_left(range(40_000), True, key=lambda length: trouble(length) is not None) - 1
    data = encode(NOISE, replace(REQUEST, prompt=letter * longest, image_format="jpeg"))
    sizes = [int.from_bytes(data[m.start() + 2 : m.start() + 4]) - 2 for m in SEGMENTS.finditer(data)]
    assert 65_533 - max(sizes) < {"x": 2, "狐": 3, '"': 11}[letter]
    assert f"prompt ({longest + 1:,} characters) is too long for a JPEG" in str(trouble(longest + 1))
    assert "image_format: png or webp" in str(trouble(longest + 1))


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
