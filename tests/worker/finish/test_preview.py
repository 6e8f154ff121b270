import io

import numpy as np
import pytest
from PIL import Image

from worker.finish.preview import contact_sheet, spread


def sheet_of(colours, size=(48, 48), without=(), broken=()):
    """The contact sheet of pictures of one colour each."""
    sizes, files = {}, {}
    for index, colour in enumerate(colours):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "PNG")
        sizes[f"{index}.png"], files[f"{index}.png"] = size, buffer.getvalue()
    there = {name: data for name, data in files.items() if name not in without}
    return contact_sheet(sizes, ((n, data[:60] if n in broken else data) for n, data in there.items()))


def opened(data):
    return Image.open(io.BytesIO(data))


def test_what_is_shown_is_spread_over_everything():
    assert spread(0) == []
    assert spread(3) == [0, 1, 2]
    assert spread(100) == list(range(100))
    shown = spread(1_000_000)
    assert len(shown) == 100
    assert set(np.diff(shown)) == {10_000}


def test_pictures_stand_in_records_in_their_order():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    sheet = opened(sheet_of(colours))
    assert sheet.format == "JPEG"
    middles = [(x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]
    for (x, y), colour in zip(middles, colours, strict=True):
        seen = sheet.getpixel((int(sheet.width * x), int(sheet.height * y)))
        assert np.abs(np.subtract(seen, colour)).max() < 12
    assert min(sheet.getpixel((1, 1))) > 235


def test_a_hundred_pictures_fit_on_one_page():
    sheet = opened(sheet_of([(i, i, i) for i in range(100)]))
    assert sheet.width <= 1600
    assert sheet.height <= 1600


def test_portraits_are_shown_whole():
    sheet = opened(sheet_of([(9, 9, 200)], size=(40, 80)))
    assert sheet.height > 1.8 * sheet.width
    assert sheet.getpixel((sheet.width // 2, 20))[2] > 150


def test_a_picture_that_cannot_be_read_leaves_its_place_empty():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9)]
    sheet = opened(sheet_of(colours, without=["1.png"], broken=["0.png"]))
    assert min(sheet.getpixel((sheet.width // 4, sheet.height // 4))) > 235
    assert min(sheet.getpixel((3 * sheet.width // 4, sheet.height // 4))) > 235
    assert max(sheet.getpixel((3 * sheet.width // 4, 3 * sheet.height // 4))) < 30


def test_equal_pictures_give_an_equal_sheet():
    colours = [(1, 2, 3), (4, 5, 6)]
    assert sheet_of(colours) == sheet_of(colours)


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet({}, [])
