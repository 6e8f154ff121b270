"""Pages of an output: which images stand on them, in both layouts, and what is not looked at for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs.output.output import Output
from jobs.output.webdataset import TarShard
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.gallery_output import GalleryOutput, Piece
from producer.serve.gallery.line import START, Cursor

Rendered = Callable[..., Output]
Look = Callable[[Output], GalleryOutput]
LAYOUTS = ("files", "webdataset")


def places(gallery: GalleryOutput, count: int, taken: Filter = Filter()) -> Iterator[list[tuple[int, int]]]:  # noqa: B008
    """The places of the images of one page after the other."""
    place: Cursor | None = START
    while place is not None:
        piece = gallery.page(place, taken, count, budget=60)
        yield [(*one.place,) for one in piece.lines]
        place = piece.next


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 3, 4, 7, 60])
def test_pages_of_any_size_have_every_image_once_in_order_and_none_that_failed(
    layout: str, count: int, rendered: Rendered, gallery: Look
) -> None:
    output = rendered(14, failed=(0, 3, 4, 5, 6, 7, 13), layout=layout)
    pages = [*places(gallery(output), count)]
    held = [divmod(place, 4) for place in range(14) if place not in (0, 3, 4, 5, 6, 7, 13)]
    assert [*itertools.chain(*pages)] == held
    assert all(len(page) == count for page in pages[:-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_line_says_what_the_record_says(layout: str, rendered: Rendered, gallery: Look) -> None:
    output = rendered(6, layout=layout)
    for line in gallery(output).page().lines:
        record = next(one for one in output.records(line.place.shard) if one["image_id"] == line.image_id)
        assert gallery(output).record(line.place) == record
        assert (line.text, line.seed, line.width, line.flagged) == (
            record["text"], record["seed"], record["width"], record["flagged"]
        )  # fmt: skip


def test_a_table_of_values_that_python_does_not_have_is_passed_over(
    rendered: Rendered, gallery: Look
) -> None:
    output = rendered(4, layout="webdataset")
    before = gallery(output).page().lines
    [file] = output.path.glob("*.parquet")
    table = pyarrow.parquet.read_table(file)
    far = pyarrow.array([2**31 - 1] * 4, pyarrow.int32()).cast(pyarrow.date32())
    pyarrow.parquet.write_table(
        table.set_column(table.schema.get_field_index("flagged"), "flagged", far), file
    )
    assert gallery(output).page().lines == before


def test_a_tar_without_its_parquet_gives_the_same_pages(rendered: Rendered, gallery: Look) -> None:
    output = rendered(12, failed=(2,), layout="webdataset")
    before = gallery(output).page().lines
    failed = gallery(output).page(taken=Filter(failed=True)).lines
    for file in output.path.glob("*.parquet"):
        file.write_bytes(b"PAR1 no table PAR1") if file.stem == "00001" else file.unlink()
    assert gallery(output).page().lines == before
    assert [line.place for line in gallery(output).page(taken=Filter(failed=True)).lines] == [(0, 2)]
    assert failed == gallery(output).page(taken=Filter(failed=True)).lines


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_images_before_a_place_are_those_that_lead_to_it(
    layout: str, rendered: Rendered, gallery: Look
) -> None:
    output = rendered(12, failed=(5,), layout=layout)
    looked = gallery(output)
    assert [(*one.place,) for one in looked.before(Cursor(1, 3), count=3).lines] == [(0, 3), (1, 0), (1, 2)]
    assert [(*one.place,) for one in looked.before(Cursor(0, 2)).lines] == [(0, 0), (0, 1)]
    assert looked.before(START) == Piece([], None, complete=True, troubles=[])


@pytest.mark.parametrize("layout", [*LAYOUTS, "webdataset without parquet"])
@pytest.mark.parametrize("count", [1, 3, 60])
@pytest.mark.parametrize(
    "taken", [Filter(), Filter(text="fox 1"), Filter(failed=True)], ids=["all", "text", "failed"]
)
def test_the_images_before_the_end_are_all_of_them_backwards(
    taken: Filter, count: int, layout: str, rendered: Rendered, gallery: Look
) -> None:
    output = rendered(22, failed=(0, 3, 9, 10, 12, 13, 14, 15), layout=layout.split(maxsplit=1)[0])
    if layout.endswith("parquet"):
        for file in output.path.glob("*.parquet"):
            file.unlink()
    looked = gallery(output)
    wanted = [*itertools.chain(*places(looked, 60, taken))]
    found: list[tuple[int, int]] = []
    place: Cursor | None = Cursor(9, 0)
    while place is not None:
        piece = looked.before(place, taken, count, budget=60)
        assert piece.next is None or piece.next < place
        found[:0] = [(*one.place,) for one in piece.lines]
        place = piece.next
    assert found == wanted


class Listing:
    """A store of an output that counts its listings, and what is read line by line."""

    def __init__(self, store: object) -> None:
        self._store, self.listed = store, 0
        self.read_lines: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def list(self, folder: str = "") -> object:
        self.listed += 1
        return self._store.list(folder)  # type: ignore[attr-defined]

    def lines(self, name: str) -> object:
        self.read_lines.append(name)
        return self._store.lines(name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_listed_to_show_a_page(layout: str, rendered: Rendered, gallery: Look) -> None:
    output = rendered(16, layout=layout)
    output.settle_names(output.names)
    store = Listing(output.store)
    looked = gallery(Output(output.path, store))  # type: ignore[arg-type]
    assert len(looked.page(count=8).lines) == len(looked.page(Cursor(2, 0), count=8).lines) == 8
    assert looked.picture(Cursor(2, 1)) is not None
    assert store.listed == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gaps_among_the_shards_are_passed_over(layout: str, rendered: Rendered, gallery: Look) -> None:
    output = rendered(16, layout=layout)
    for shard in ("00000", "00002"):
        for file in output.path.glob(f"{shard}*"):
            file.rename(output.path / f"aside-{file.name}")
    looked = gallery(output)
    assert [one.place.shard for one in looked.page().lines] == [1] * 4 + [3] * 4
    assert [one.place.shard for one in looked.before(Cursor(3, 0), count=2).lines] == [1, 1]
    assert looked.page(Cursor(9_999, 0)).lines == []


def test_a_damaged_shard_is_named_and_the_others_are_shown(rendered: Rendered, gallery: Look) -> None:
    output = rendered(12)
    output.metadata_file(1).write_text("no JSON\n")
    piece = gallery(output).page()
    assert [one.place.shard for one in piece.lines] == [0] * 4 + [2] * 4
    assert len(piece.troubles) == 1
    assert "00001/metadata.jsonl:1" in piece.troubles[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_is_its_file(layout: str, rendered: Rendered, gallery: Look) -> None:
    output = rendered(6, failed=(4,), layout=layout)
    looked = gallery(output)
    for shard in (0, 1):
        names = {record["file_name"] for record in output.records(shard)}
        for name, data in output.pictures(shard, names):
            position = output.names.position(shard, name)
            assert position is not None
            found = looked.picture(Cursor(shard, position))
            assert found is not None
            assert (found[0], found[1]["file_name"]) == (data, name)
    assert looked.picture(Cursor(1, 0)) is None  # it failed
    assert looked.picture(Cursor(0, 4)) is looked.picture(Cursor(7, 0)) is None


def test_a_tar_that_was_replaced_is_read_anew(rendered: Rendered, gallery: Look, tmp_path: Path) -> None:
    output = rendered(8, layout="webdataset")
    looked = gallery(output)
    assert looked.picture(Cursor(0, 1)) is not None
    tar = TarShard(output.store, 0, output.names)
    (output.path / tar.name).unlink()
    assert looked.picture(Cursor(0, 1)) is None


def test_the_extent_is_the_reports_or_is_estimated_by_shards(rendered: Rendered, gallery: Look) -> None:
    output = rendered(10)
    extent = gallery(output).extent()
    assert (extent.images, extent.last, extent.shards, extent.exact) == (10, 2, 3, True)
    (output.path / "job.json").unlink()
    extent = gallery(output).extent()
    assert (extent.images, extent.exact) == (10, False)


def test_looking_for_new_pictures_counts_no_shard_again(rendered: Rendered, gallery: Look) -> None:
    output = rendered(10)
    output.settle_names(output.names)
    store = Listing(output.store)
    looked = gallery(Output(output.path, store))  # type: ignore[arg-type]
    assert [looked.extent(reported=False).images for _ in range(3)] == [10, 10, 10]
    assert store.read_lines == ["00000/metadata.jsonl", "00002/metadata.jsonl"]


def test_an_output_without_shards_has_no_pages(tmp_path: Path, gallery: Look) -> None:
    output = Output(tmp_path / "new")
    output.prepare()
    assert gallery(output).page().lines == []
    assert gallery(output).extent().last == -1
    assert gallery(output).record(START) is None
