import io
from itertools import zip_longest

import numpy as np
import pytest
from PIL import Image

from worker.finish.preview import Cell, contact_sheet, spread


def sheet_of(colours, size=(48, 48), without=(), broken=(), prompts=(), ids=()):
    """The contact sheet of pictures of one colour each."""
    cells, files = [], {}
    for index, (colour, prompt, user_id) in enumerate(
        zip_longest(colours, prompts or ["a fox"] * len(colours), ids)
    ):
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, "PNG")
        cells.append(Cell(f"{index}.png", *size, prompt, user_id))
        files[f"{index}.png"] = buffer.getvalue()
    there = {name: data for name, data in files.items() if name not in without}
    return contact_sheet(cells, ((n, data[:60] if n in broken else data) for n, data in there.items()))


def captioned(prompt, user_id=None):
    """The contact sheet of one green picture."""
    return sheet_of([(0, 200, 0)], prompts=[prompt], ids=[user_id])


def ink(data):
    """Where anything is written beneath the green picture of a sheet: [H, W], and how high the picture is."""
    pixels = np.asarray(opened(data)).astype(int)
    top = np.flatnonzero((pixels[:, 20, 1] - pixels[:, 20, 0]) > 60)[-1] + 3
    return pixels[top:].max(-1) < 190


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
    middles = [(x, y) for y in (0.22, 0.72) for x in (0.25, 0.75)]
    for (x, y), colour in zip(middles, colours, strict=True):
        seen = sheet.getpixel((int(sheet.width * x), int(sheet.height * y)))
        assert np.abs(np.subtract(seen, colour)).max() < 12
    assert min(sheet.getpixel((1, 1))) > 235


def test_a_hundred_pictures_fit_on_one_page():
    sheet = opened(sheet_of([(i, i, i) for i in range(100)]))
    assert sheet.width <= 1600
    assert sheet.height <= 1.2 * sheet.width


def test_portraits_are_shown_whole():
    sheet = opened(sheet_of([(9, 9, 200)], size=(40, 80)))
    assert sheet.height > 1.8 * sheet.width
    assert sheet.getpixel((sheet.width // 2, 20))[2] > 150


def test_a_picture_that_cannot_be_read_leaves_its_place_empty():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (9, 9, 9)]
    sheet = opened(sheet_of(colours, without=["1.png"], broken=["0.png"]))
    assert min(sheet.getpixel((sheet.width // 4, sheet.height // 5))) > 235
    assert min(sheet.getpixel((3 * sheet.width // 4, sheet.height // 5))) > 235
    assert max(sheet.getpixel((3 * sheet.width // 4, 7 * sheet.height // 10))) < 30


def test_equal_pictures_give_an_equal_sheet():
    colours = [(1, 2, 3), (4, 5, 6)]
    assert sheet_of(colours) == sheet_of(colours)


def test_each_picture_has_its_prompt_beneath_it():
    fox, cat = captioned("a fox under a tree"), captioned("a cat under a tree")
    assert ink(fox).sum() > 300
    assert fox != cat
    assert not ink(captioned("")).any()


def test_a_users_id_stands_below_the_prompt():
    without, with_id = ink(captioned("a fox")), ink(captioned("a fox", "fox-1"))
    assert len(with_id) > len(without), "it has a line of its own"
    assert with_id.any(1).sum() > 1.5 * without.any(1).sum()
    assert captioned("a fox", "fox-1") != captioned("a fox", "fox-2")


@pytest.mark.parametrize("prompt", ["a fox " * 40, "x" * 5000, "i" * 5000, "W" * 400])
def test_a_long_prompt_is_cut_to_two_lines_in_its_column(prompt):
    long, two_lines = ink(captioned(prompt)), ink(captioned(prompt[:250]))
    assert np.array_equal(long, two_lines)
    assert long.shape == ink(captioned("a")).shape
    assert not long[:, :4].any()
    assert not long[:, -4:].any()
    assert captioned(prompt) == captioned(prompt + " and more")


def test_what_the_font_cannot_draw_is_a_question_mark_and_accents_go():
    assert captioned("日本 a river 🦊") == captioned("?? a river ?")
    assert captioned("naïve café") == captioned("naive cafe")
    assert captioned("cafe\u0301") == captioned("cafe")
    assert captioned("one\n\ttwo\r three\u00a0four") == captioned("one two three four")
    assert captioned("\x00\x07\ud800") == captioned("???")


def test_captions_of_a_hundred_small_cells_leave_their_neighbours_alone():
    prompts = [f"picture {n} of a very long story that does not fit into its cell" for n in range(100)]
    pixels = np.asarray(opened(sheet_of([(0, 200, 0)] * 100, prompts=prompts))).astype(int)
    between = pixels[:, [column * (pixels.shape[1] - 6) // 11 + 2 for column in range(11)]]
    assert (between.min(-1) > 225).all(), "the margins between columns stay paper"


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([], [])
