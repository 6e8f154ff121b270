"""Grids: which picture stands where is read from the pixels of the pages."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.errors import JobError, OutputError
from jobs.lettering import load_font
from producer.export.grid import Grid, GridOptions
from producer.export.grid_layout import Axes
from producer.export.names import INDEX, NameTemplate
from producer.export.source import Picture

Colour = tuple[int, int, int]
SAMPLERS = ["LMS", "DDIM", "DPM++ 2M Karras"]


def picture(number: int, *, size: tuple[int, int] = (64, 64), **changed: Any) -> Picture:
    """A picture of one colour, which no other number has."""
    file = io.BytesIO()
    Image.new("RGB", size, colour(number)).save(file, "PNG")
    record = {
        "file_name": f"{number:09d}.png", "text": "a red circle", "image_id": f"{number:016x}",
        "negative_prompt": "", "height": size[1], "width": size[0], "num_inference_steps": 20,
        "guidance_scale": 3.0, "scheduler": "DDIM", "seed": 1, "model": "shapes", "revision": "v1",
        "id": None, "job_id": "g-1", **changed,
    }  # fmt: skip
    data = file.getvalue()
    return Picture({**record, "sha256": hashlib.sha256(data).hexdigest()}, data)


def colour(number: int) -> Colour:
    return (10 + number * 53 % 240, 10 + number * 101 % 240, 200 - number)


def swept(**values: Sequence[Any]) -> list[Picture]:
    """Every combination, the last name changing fastest."""
    return [
        picture(number, **dict(zip(values, combination, strict=True)))
        for number, combination in enumerate(product(*values.values()))
    ]


def draw(
    target: Path,
    pictures: Sequence[Picture],
    *,
    plain: bool = False,
    name: str = INDEX,
    font: Path | None = None,
    **axes: Any,
) -> tuple[dict[str, Image.Image], tuple[str, ...]]:
    """The pages by name, and the remarks."""
    form = Grid(NameTemplate(name), GridOptions(axes=Axes(**axes), plain=plain, font=font))
    for one in pictures:
        form.add(one.record)
    written = form.write(target, iter(pictures))
    pages = {file.name: Image.open(file).convert("RGB") for file in sorted(target.iterdir())}
    assert written.pages == len(pages)
    return pages, written.remarks


def placed(page: Image.Image, numbers: Iterable[int]) -> list[list[int | None]]:
    """The numbers of the pictures, row by row, by where their colours are on the page."""
    pixels = page.load()
    assert pixels is not None
    wanted = {colour(number): number for number in numbers}
    centres = dict[int, tuple[float, float]]()
    spots = dict[int, list[tuple[int, int]]]()
    for x, y in product(range(0, page.width, 4), range(0, page.height, 4)):
        number = wanted.get(pixels[x, y])  # type: ignore[arg-type]
        if number is not None:
            spots.setdefault(number, []).append((x, y))
    for number, here in spots.items():
        assert len(here) > 100, "a picture is as large as a cell"
        centres[number] = sum(x for x, _ in here) / len(here), sum(y for _, y in here) / len(here)
    columns, rows = (sorted({round(centre[i] / 40) for centre in centres.values()}) for i in (0, 1))
    table: list[list[int | None]] = [[None] * len(columns) for _ in rows]
    for number, (x, y) in centres.items():
        table[rows.index(round(y / 40))][columns.index(round(x / 40))] = number
    return table


def test_a_sweep_lies_along_its_axes_on_a_page_for_each_prompt_and_seed(tmp_path: Path) -> None:
    pictures = swept(
        text=["a circle", "a star"], guidance_scale=[1.0, 3.0, 7.5], scheduler=SAMPLERS, seed=[1, 2]
    )
    pages, remarks = draw(tmp_path / "grid", pictures, x="scheduler", y="guidance_scale")
    assert [*pages] == [f"{number:09d}.png" for number in range(4)]
    assert remarks == ()
    for number, page in enumerate(pages.values()):
        first = number // 2 * 18 + number % 2
        rows = [[first + 6 * row + 2 * column for column in range(3)] for row in range(3)]
        assert placed(page, range(36)) == rows


def test_numbers_are_laid_out_by_size_and_names_in_the_order_of_the_sweep(tmp_path: Path) -> None:
    pictures = swept(scheduler=["UniPC", "DDIM"], num_inference_steps=[50, 5, 20])
    pages, _ = draw(tmp_path / "grid", pictures, x="num_inference_steps", y="scheduler")
    assert placed(*pages.values(), range(6)) == [[1, 2, 0], [4, 5, 3]]


def test_prompts_can_be_an_axis_and_one_axis_is_enough(tmp_path: Path) -> None:
    pictures = swept(text=["a circle", "a star"], scheduler=SAMPLERS)
    pages, _ = draw(tmp_path / "both", pictures, x="scheduler", y="prompt")
    assert placed(*pages.values(), range(6)) == [[0, 1, 2], [3, 4, 5]]
    pages, _ = draw(tmp_path / "one", pictures, y="scheduler")
    assert [placed(page, range(6)) for page in pages.values()] == [[[0], [1], [2]], [[3], [4], [5]]]


def test_columns_of_the_users_own_and_single_arguments_can_be_axes(tmp_path: Path) -> None:
    pictures = [
        picture(
            number, text=f"a {shape}, {colour}", shape=shape, colour=colour, seed=number,
            arguments=json.dumps({"eta": eta}),
        )
        for number, (shape, colour, eta) in enumerate(product(["star", "circle"], ["red", "blue"], [0, 1]))
    ]  # fmt: skip
    pages, _ = draw(tmp_path / "own", pictures, x="colour", y="shape")
    assert [placed(page, range(8)) for page in pages.values()] == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    pages, _ = draw(tmp_path / "eta", pictures, x="arguments.eta", y="shape", pages=("colour",))
    assert [placed(page, range(8)) for page in pages.values()] == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


def test_derived_seeds_put_each_cells_first_picture_on_the_first_page(tmp_path: Path) -> None:
    pictures = swept(scheduler=SAMPLERS, nth=[0, 1])
    pictures = [
        Picture({**one.record, "seed": 1000 - 37 * place}, one.data) for place, one in enumerate(pictures)
    ]
    pages, _ = draw(tmp_path / "grid", pictures, x="scheduler")
    assert [placed(page, range(6)) for page in pages.values()] == [[[0, 2, 4]], [[1, 3, 5]]]
    pages, _ = draw(tmp_path / "seeds", pictures, x="seed", y="scheduler")
    assert placed(*pages.values(), range(6)) == [[0, 1], [2, 3], [4, 5]]


def test_a_failed_picture_leaves_its_own_cell_empty_and_moves_no_other(tmp_path: Path) -> None:
    pictures = swept(guidance_scale=[1.0, 3.0], scheduler=SAMPLERS, seed=[1, 2])
    del pictures[2]
    pages, remarks = draw(tmp_path / "grid", pictures, x="scheduler", y="guidance_scale")
    assert [placed(page, range(12)) for page in pages.values()] == [
        [[0, None, 4], [6, 8, 10]],
        [[1, 3, 5], [7, 9, 11]],
    ]
    assert remarks == ("1 cell without a picture",)


def test_a_setting_that_follows_from_an_axis_makes_no_pages_of_its_own(tmp_path: Path) -> None:
    pictures = [
        picture(0, model="small", revision="v1", num_inference_steps=4, seed=11),
        picture(1, model="large", revision="v2", num_inference_steps=50, seed=12),
    ]
    pages, _ = draw(tmp_path / "grid", pictures, x="model")
    assert placed(*pages.values(), range(2)) == [[0, 1]]


def test_two_pictures_for_one_place_are_refused_with_what_they_differ_in(tmp_path: Path) -> None:
    pictures = swept(shape=["star", "circle"], text=["a", "b"])
    with pytest.raises(
        OutputError,
        match=r"image 0{16} .* and image 0{15}1 .* would .*\(shape = star\).*differ in prompt.*--page p",
    ):
        draw(tmp_path / "grid", pictures, x="shape")
    pages, _ = draw(tmp_path / "grid", pictures, x="shape", pages=("prompt",))
    assert [placed(page, range(4)) for page in pages.values()] == [[[0, 2]], [[1, 3]]]


def test_without_axes_the_pictures_of_a_prompt_lie_side_by_side(tmp_path: Path) -> None:
    pictures = swept(id=["fox", "owl"], seed=[5, 4, 3, 2])
    pages, _ = draw(tmp_path / "grid", pictures, name="{id}")
    assert {name: placed(page, range(8)) for name, page in pages.items()} == {
        "fox.png": [[0, 1], [2, 3]],
        "owl.png": [[4, 5], [6, 7]],
    }


def test_a_plain_page_is_what_dpg_bench_cuts_into_quarters(tmp_path: Path) -> None:
    side = 96
    pictures = [
        picture(number, size=(side, side), id=f"partiprompts{number // 4}", seed=number)
        for number in range(8)
    ]
    pages, _ = draw(tmp_path / "dpg", pictures, plain=True, name="{id}.png")
    for number, (name, page) in enumerate(pages.items()):
        assert name.split(".", 1)[0] == f"partiprompts{number}"
        assert page.size == (2 * side, 2 * side)
        corners = [(0, 0), (side, 0), (0, side), (side, side)]
        for place, (x, y) in enumerate(corners):
            quarter = page.crop((x, y, x + side, y + side))
            assert quarter.getcolors() == [(side * side, colour(number * 4 + place))]


@pytest.mark.parametrize(
    ("pictures", "wrong"),
    [
        (swept(seed=[1, 2, 3]), r"3 pictures in 2 x 2 cells.*--x seed, render what is missing"),
        (swept(id=["a", "b"], seed=[1, 2])[:3], r"page of image 0{15}2 .* 1 picture, and the first page 2"),
        (
            [picture(0), picture(1, size=(64, 32), seed=2)],
            r"has 64x32 pixels.*64x64: a plain page takes one size",
        ),
    ],
)
def test_a_plain_page_that_a_program_would_misread_is_refused(
    tmp_path: Path, pictures: list[Picture], wrong: str
) -> None:
    with pytest.raises(OutputError, match=wrong):
        draw(tmp_path / "grid", pictures, plain=True)


def test_a_page_is_named_by_what_its_pictures_share(tmp_path: Path) -> None:
    pictures = swept(id=["fox", "owl"], seed=[1, 2], scheduler=SAMPLERS)
    pages, _ = draw(tmp_path / "grid", pictures, x="scheduler", name="{id}-{seed}")
    assert [*pages] == ["fox-1.png", "fox-2.png", "owl-1.png", "owl-2.png"]
    with pytest.raises(OutputError, match=r"page 0 \(of image .* has pictures that differ in scheduler"):
        draw(tmp_path / "no", pictures, x="scheduler", name="{scheduler}")
    with pytest.raises(
        OutputError, match=r"page 0 \(of .* and page 1 \(of .* would both be called \"fox.png\""
    ):
        draw(tmp_path / "no", pictures, x="scheduler", name="{id}")
    with pytest.raises(
        OutputError, match=r"--x shedule: image .* has no column 'shedule' \(do you mean 'sche"
    ):
        draw(tmp_path / "no", pictures, x="shedule")


def test_long_labels_are_wrapped_and_pictures_keep_their_shape(tmp_path: Path) -> None:
    long = "an extremely long prompt about a fox that jumps over a dog, " * 20
    pictures = [
        picture(number, text=text, size=size, scheduler=sampler)
        for number, (text, (size, sampler)) in enumerate(
            product([long, "short"], [((300, 200), "DDIM"), ((200, 300), "DPM++ 2M SDE Karras " * 9)])
        )
    ]
    pages, _ = draw(tmp_path / "grid", pictures, x="scheduler", y="prompt")
    (page,) = pages.values()
    assert placed(page, range(4)) == [[0, 1], [2, 3]]
    assert page.width < 1200
    assert page.height < 1000
    counts = {value: count for count, value in page.getcolors(1 << 20) or []}
    assert [counts[colour(number)] for number in range(4)] == [60_000] * 4


def test_a_page_that_would_be_too_large_is_drawn_smaller_and_said_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.export.grid_page._MOST_PIXELS", 6 * 100 * 100)
    pictures = [picture(number, size=(200, 200), seed=number) for number in range(6)]
    pages, remarks = draw(tmp_path / "grid", pictures, x="seed")
    assert remarks == ("pictures at 50% of their size, so that a page is not too large",)
    counts = {value: count for count, value in pages["000000000.png"].getcolors(1 << 20) or []}
    assert [counts[colour(number)] for number in range(6)] == [10_000] * 6
    monkeypatch.setattr("producer.export.grid_page._MOST_PIXELS", 6 * 60 * 60)
    with pytest.raises(OutputError, match="a page would have 6 x 1 pictures, too small to see: name an axis"):
        draw(tmp_path / "tiny", pictures, x="seed")


def test_equal_pictures_give_equal_pages_and_only_labels_depend_on_the_font(tmp_path: Path) -> None:
    pictures = swept(scheduler=["狐", "naïve"])
    _, remarks = draw(tmp_path / "a", pictures, x="scheduler")
    draw(tmp_path / "b", pictures, x="scheduler")
    name = "000000000.png"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert remarks == (
        "2 characters that the labels' font lacks drawn as ? or without an accent: name another font by "
        "--font",
    )
    own = tmp_path / "own.ttf"
    own.write_bytes(load_font(12).font_bytes)
    draw(tmp_path / "c", pictures, x="scheduler", font=own)
    assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    own.write_bytes(b"no font")
    with pytest.raises(JobError, match=r"--font .*own\.ttf: cannot be read as a font"):
        draw(tmp_path / "d", pictures, x="scheduler", font=own)


def test_what_is_transparent_lies_on_the_pages_colour(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(file, "PNG")
    one = Picture(picture(0).record, file.getvalue())
    pages, _ = draw(tmp_path / "grid", [one], plain=True)
    assert pages["000000000.png"].getcolors() == [(64 * 64, (250, 250, 248))]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    one = Picture(picture(3).record, b"no picture")
    with pytest.raises(OutputError, match=r"image 0{15}3 \(index 0\): cannot be read as a picture"):
        draw(tmp_path / "grid", [one])
