"""Pictures that people give have one look, whatever their format says of turn, depth and transparency."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.errors import InputError
from jobs.inputs.input_picture import MAX_PIXELS, read_header, read_picture

RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
ORIENTATION = 0x0112


def contents(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def halves(left: object = RED, right: object = BLUE, size: tuple[int, int] = (32, 16)) -> Image.Image:
    """A picture of two colours side by side."""
    picture = Image.new("RGB", size, left)  # type: ignore[arg-type]
    picture.paste(right, (size[0] // 2, 0, *size))  # type: ignore[arg-type]
    return picture


def bomb(side: int) -> bytes:
    """A small file of a PNG that claims to be so large."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_a_picture_of_the_painted_size_keeps_its_pixels() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    read = read_picture(contents(noise), 16, 24, "crop")
    assert np.array_equal(np.asarray(read), np.asarray(noise))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    turned = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    file = tmp_path / "a.jpg"
    file.write_bytes(contents(halves(), "JPEG", exif=exif, quality=100, subsampling=0))
    upright = turn < 5
    header = read_header(file)
    assert (header.height, header.width) == ((16, 32) if upright else (32, 16))
    read = read_picture(file.read_bytes(), header.height, header.width, "crop")
    centres = {
        "left": (4, header.height // 2),
        "right": (header.width - 4, header.height // 2),
        "top": (header.width // 2, 4),
        "bottom": (header.width // 2, header.height - 4),
    }
    red, _, blue = read.getpixel(centres[turned[turn]])  # type: ignore[misc]
    assert red > 200
    assert blue < 60


def test_transparency_is_laid_on_white_and_in_a_mask_on_black() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert read_picture(contents(clear), 8, 8, "crop").getpixel((1, 1)) == WHITE
    mask = read_picture(contents(clear), 8, 8, "crop", mask=True)
    assert (mask.mode, mask.getpixel((1, 1))) == ("L", 0)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert read_picture(contents(half), 8, 8, "crop").getpixel((1, 1)) == (127, 127, 127)


def test_every_mode_of_pillow_becomes_rgb_of_eight_bits() -> None:
    deep = Image.fromarray(np.full((8, 8), 0x8080, np.uint16))
    assert read_picture(contents(deep), 8, 8, "crop").getpixel((0, 0)) == (128, 128, 128)
    palette = halves().quantize(4)
    assert read_picture(contents(palette), 16, 32, "crop").getpixel((0, 0)) == RED
    indexed = halves().quantize(4)
    indexed.info["transparency"] = indexed.getpixel((31, 0))
    assert read_picture(contents(indexed), 16, 32, "crop").getpixel((31, 0)) == WHITE
    cmyk = halves().convert("CMYK")
    red, _, blue = read_picture(contents(cmyk, "JPEG", quality=100), 16, 32, "crop").getpixel((2, 8))  # type: ignore[misc]
    assert red > 200
    assert blue < 60
    grey = Image.new("LA", (8, 8), (0, 0))
    assert read_picture(contents(grey), 8, 8, "crop").getpixel((0, 0)) == WHITE
    bits = Image.new("1", (8, 8), 1)
    assert read_picture(contents(bits), 8, 8, "crop", mask=True).getpixel((0, 0)) == 255


def seen(picture: Image.Image, form: str, *, mask: bool = False, **options: Any) -> list[object]:
    """The first row of the picture once it was read."""
    size = picture.size
    read = read_picture(contents(picture, form, **options), size[1], size[0], "crop", mask=mask)
    return [read.getpixel((x, 0)) for x in range(size[0])]


def test_deep_greys_are_scaled_by_the_number_that_is_white() -> None:
    deep = Image.fromarray(np.array([[0, 0x8080, 0xFFFF]], np.uint16))
    for form in ("PNG", "TIFF"):
        assert seen(deep, form, mask=True) == [0, 128, 255]
    ends = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert seen(ends, "TIFF", mask=True) == [0, 128, 255]
    negative = seen(ends, "TIFF", mask=True, tiffinfo={262: 0})
    assert negative == [255, 127, 0]
    twelve = bytearray(contents(Image.fromarray(np.zeros((1, 2), np.uint16)), "TIFF"))
    at = twelve.index(struct.pack("<HHI", 258, 3, 1)) + 8
    twelve[at : at + 2] = struct.pack("<H", 12)
    data = struct.unpack_from("<I", twelve, twelve.index(struct.pack("<HH", 273, 4)) + 8)[0]
    twelve[data : data + 3] = bytes([0xFF, 0xF0, 0x00])
    read = read_picture(bytes(twelve), 1, 2, "crop", mask=True)
    assert [read.getpixel((x, 0)) for x in range(2)] == [255, 0]


def test_what_is_transparent_of_a_deep_grey_is_laid_on_white_and_of_a_mask_on_black() -> None:
    deep = Image.fromarray(np.array([[0, 0x8080, 0xFFFF]], np.uint16))
    assert seen(deep, "PNG", transparency=0x8080) == [BLACK, WHITE, WHITE]
    assert seen(deep, "PNG", transparency=0x8080, mask=True) == [0, 0, 255]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (
            np.array([[0.0, 255.0]], np.float32),
            "holds numbers from 0 to 255; white is 1: scale them to 0 ",
        ),
        (
            np.array([[-0.5, 1.0]], np.float32),
            "holds numbers from -0.5 to 1; white is 1: scale them to 0",
        ),
        (np.array([[np.nan, 1.0]], np.float32), "holds numbers from nan to nan; white is 1: scale them"),
        (np.array([[0, 255]], np.int32), "holds numbers of 32 bits or with a sign, of which none is white"),
    ],
)
def test_numbers_that_no_shade_is_are_refused_by_the_header_already(
    tmp_path: Path, numbers: Any, says: str
) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(contents(Image.fromarray(numbers), "TIFF"))
    with pytest.raises(InputError) as refused:
        read_header(file)
    assert str(refused.value).startswith(says)
    with pytest.raises(InputError) as refused:
        read_picture(file.read_bytes(), 1, 2, "crop")
    assert str(refused.value).startswith(says)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    file.write_bytes(
        contents(
            Image.new("RGB", (8, 8), RED),
            "GIF",
            save_all=True,
            append_images=[Image.new("RGB", (8, 8), BLUE)],
        )
    )
    assert read_header(file).animated
    assert read_picture(file.read_bytes(), 8, 8, "crop").getpixel((0, 0)) == RED


def test_crop_cuts_both_sides_pad_adds_black_and_stretch_changes_the_proportions() -> None:
    wide = contents(halves(size=(64, 16)))
    crop, pad, stretch = (read_picture(wide, 16, 16, fit) for fit in ("crop", "pad", "stretch"))
    assert {one.size for one in (crop, pad, stretch)} == {(16, 16)}
    assert (crop.getpixel((0, 0)), crop.getpixel((15, 15))) == (RED, BLUE)
    assert (pad.getpixel((0, 0)), pad.getpixel((0, 8)), pad.getpixel((15, 15))) == (BLACK, RED, BLACK)
    assert (stretch.getpixel((0, 0)), stretch.getpixel((15, 15))) == (RED, BLUE)


def test_a_header_tells_size_transparency_and_frames_and_decodes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    whole = contents(Image.effect_noise((64, 48), 90).convert("RGBA"))
    file.write_bytes(whole[: len(whole) // 2])
    header = read_header(file)
    assert (header.height, header.width, header.transparent, header.animated) == (48, 64, True, False)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_picture_that_is_cut_short_is_refused_when_it_is_read(form: str) -> None:
    whole = contents(Image.effect_noise((64, 48), 90).convert("RGB"), form)
    with pytest.raises(InputError, match=r"is (a broken|no) picture .*: save it"):
        read_picture(whole[: len(whole) // 2], 48, 64, "crop")


def test_damaged_pictures_are_read_or_refused_and_nothing_else() -> None:
    chance = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        whole = contents(Image.effect_noise((24, 24), 90).convert("RGB"), form)
        for _ in range(25):
            damaged = bytearray(whole)
            for place in chance.integers(0, len(whole), 4):
                damaged[place] = chance.integers(0, 256)
            try:
                assert read_picture(bytes(damaged), 24, 24, "crop").size == (24, 24)
            except InputError as error:
                assert ": " in str(error)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    file = tmp_path / "bomb.png"
    for side in (14_000, 60_000):
        file.write_bytes(bomb(side))
        with pytest.raises(InputError, match=f"more than {MAX_PIXELS:,} pixels"):
            read_header(file)
        with pytest.raises(InputError, match=f"more than {MAX_PIXELS:,} pixels"):
            read_picture(file.read_bytes(), 8, 8, "crop")


def test_what_is_no_picture_is_refused_with_the_reason(tmp_path: Path) -> None:
    text, pipe = tmp_path / "a.png", tmp_path / "pipe.png"
    text.write_text("a picture")
    os.mkfifo(pipe)
    for path, what in (
        (text, "is no picture that Pillow reads: save it as PNG, JPEG or WebP"),
        (pipe, "is no plain file"),
        (tmp_path, "is no plain file"),
        (tmp_path / "gone.png", "there is no such file: correct it, or put the file there"),
        (tmp_path / "a.png" / "b.png", "cannot be read: Not a directory"),
        (tmp_path / "a\0.png", "is no name of a file"),
    ):
        with pytest.raises(InputError) as refused:
            read_header(path)
        assert str(refused.value).startswith(what)
