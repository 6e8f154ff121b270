"""Pictures in another form: the same bytes and metadata, whole or not at all, seen by foreign readers."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from jobs.dataset_card import contents
from jobs.errors import OutputError
from jobs.export.parquet import with_image, write_parquet
from jobs.export.pictures import Picture, pictures
from jobs.export.shards import write_shards
from jobs.export.target import appearing, check_free
from jobs.layouts.stored_shard import LayoutName
from jobs.output import Output
from jobs.request import Entry, ImageRequest
from worker.renderer import RenderedBy
from worker.store import ShardStore

TEXTS = ["a red fox", "", "naïve 狐 🦊👩‍👩‍👧", "one\ntwo\r\n", 'quotes ", and \\', "null", "x" * 10_000]
COLUMNS: list[dict[str, Any]] = [
    {"weight": 1, "tags": ["a", "b"], "box": {"x": 1, "y": [2.5]}, "mixed": "text", "empty": {}},
    {"weight": 0.5, "tags": [], "box": None, "mixed": {"a": [1]}, "empty": {}},
]
MADE_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
LAYOUTS: list[LayoutName] = ["files", "webdataset"]


def fill(folder: Path, layout: LayoutName = "files") -> Output:
    """An output of seven pictures in three shards, the last of them in both formats."""
    output = Output(folder)
    output.prepare()
    lines = [
        Entry(
            request=ImageRequest(
                prompt=text, seed=seed, model="shapes", revision="v1", height=16, width=16,
                image_format="jpeg" if seed == 6 else "png",
            ),
            columns=COLUMNS[seed] if seed < 2 else {},
        )
        for seed, text in enumerate(TEXTS)
    ]  # fmt: skip
    for shard, here in enumerate((lines[:3], lines[3:5], lines[5:])):
        names = sorted({name for one in here for name in one.columns})
        store = ShardStore(
            output, shard, "1", here, job_id="foxes-1", column_names=names, adopt_below=0, layout=layout
        )  # fmt: skip
        for position, one in enumerate(here):
            store.save(position, np.full((16, 16, 3), one.request.seed, np.uint8), MADE_BY)
        assert store.commit([])
    return output


def taken(output: Output) -> list[Picture]:
    return list(pictures(output, output.shards(), lambda image_id: True))


def told(one: Picture) -> dict[str, Any]:
    """Its metadata, but for the name of its file."""
    return {name: value for name, value in one.row.items() if name != "file_name"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_outputs_pictures_come_in_order_with_their_metadata(tmp_path: Path, layout: LayoutName) -> None:
    found = taken(fill(tmp_path / "out", layout))
    assert [one.row["text"] for one in found] == TEXTS
    assert [one.suffix for one in found] == [".png"] * 6 + [".jpg"]
    assert all(hashlib.sha256(one.data).hexdigest() == one.row["sha256"] for one in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_pictures_that_are_asked_for_are_read(tmp_path: Path, layout: LayoutName) -> None:
    output = fill(tmp_path / "out", layout)
    wanted = {one.row["image_id"] for one in taken(output) if one.row["seed"] in {1, 4, 6}}
    found = pictures(output, output.shards(), wanted.__contains__)
    assert [one.row["seed"] for one in found] == [1, 4, 6]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("shard_size", [1, 3, 1000])
def test_shards_of_another_size_and_layout_hold_the_same(
    tmp_path: Path, source: LayoutName, layout: LayoutName, shard_size: int
) -> None:
    before = taken(fill(tmp_path / "out", source))
    target = Output(tmp_path / "new")
    shards = write_shards(target, layout, iter(before), shard_size)
    assert target.shards() == list(range(shards)) == list(range(-(-7 // shard_size)))
    after = taken(target)
    assert [one.data for one in after] == [one.data for one in before]
    assert [told(one) for one in after] == [told(one) for one in before]
    names = [one.row["file_name"] for one in after]
    assert names == [
        f"{seed // shard_size:05d}{seed % shard_size:04d}.{'jpg' if seed == 6 else 'png'}"
        for seed in range(7)
    ]
    assert not list(target.path.glob(".*"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_gives_the_same_bytes_whatever_layout_lay_between(
    tmp_path: Path, layout: LayoutName
) -> None:
    straight = Output(tmp_path / "straight")
    write_shards(straight, "files", iter(taken(fill(tmp_path / "out"))), 4)
    between, back = Output(tmp_path / "between"), Output(tmp_path / "back")
    write_shards(between, layout, iter(taken(straight)), 2)
    write_shards(back, "files", iter(taken(between)), 4)
    assert files_of(back.path) == files_of(straight.path)


def test_what_is_neither_whole_nor_there_stops_with_its_name_and_the_doctor(tmp_path: Path) -> None:
    output = fill(tmp_path / "out")
    file = output.path / "00001/000010001.png"
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    with pytest.raises(OutputError, match=r"00001.*000010001\.png.*SHA-256.*imagemill doctor /"):
        taken(output)
    file.unlink()
    with pytest.raises(OutputError, match=r"00001.*000010001\.png is missing.*imagemill doctor /"):
        taken(output)


def parquet_of(output: Output, file: Path, *, with_pictures: bool = True) -> Path:
    found = contents(output)
    rows = [with_image(one) if with_pictures else one.row for one in taken(output)]
    write_parquet(file, rows, {"image": "image", **found.columns} if with_pictures else found.columns)
    return file


def test_datasets_reads_pictures_and_every_column_from_the_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    file = parquet_of(fill(tmp_path / "out"), tmp_path / "foxes.parquet")
    rows = list(
        datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "hf"))
    )
    assert [row["text"] for row in rows] == TEXTS
    assert [row["image"].size for row in rows] == [(16, 16)] * 7
    assert [row["image"].getpixel((0, 0))[0] for row in rows[:6]] == list(range(6))
    assert [row["weight"] for row in rows] == [1.0, 0.5] + [None] * 5
    assert [row["tags"] for row in rows[:2]] == [["a", "b"], []]
    assert [row["box"] for row in rows[:2]] == [{"x": 1, "y": [2.5]}, None]
    assert [row["mixed"] for row in rows[:2]] == ["text", '{"a": [1]}']
    assert [row["empty"] for row in rows[:3]] == ["{}", "{}", None]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pyarrow_reads_the_files_own_bytes_and_the_metadata(tmp_path: Path, layout: LayoutName) -> None:
    output = fill(tmp_path / "out", layout)
    table = pyarrow.parquet.read_table(parquet_of(output, tmp_path / "foxes.parquet"))
    before = taken(output)
    assert [one["bytes"] for one in table["image"].to_pylist()] == [one.data for one in before]
    assert [one["path"] for one in table["image"].to_pylist()] == [one.row["file_name"] for one in before]
    changed = {"image", "weight", "tags", "box", "mixed", "empty"}
    plain = [{n: v for n, v in row.items() if n not in changed} for row in table.to_pylist()]
    assert plain == [{n: v for n, v in one.row.items() if n not in changed} for one in before]


def test_a_parquet_without_pictures_has_all_but_them(tmp_path: Path) -> None:
    output = fill(tmp_path / "out")
    table = pyarrow.parquet.read_table(parquet_of(output, tmp_path / "foxes.parquet", with_pictures=False))
    assert "image" not in table.column_names
    assert table["file_name"].to_pylist() == [one.row["file_name"] for one in taken(output)]


def test_equal_outputs_give_equal_parquets_of_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.export.parquet._GROUP_BYTES", 200)
    one, other = (parquet_of(fill(tmp_path / name), tmp_path / f"{name}.parquet") for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert pyarrow.parquet.ParquetFile(one).num_row_groups > 2


def test_a_parquet_that_cannot_hold_a_number_unchanged_is_refused(tmp_path: Path) -> None:
    rows = [{"n": 2**53 + 1}, {"n": 0.5}]
    with pytest.raises(OutputError, match=r"9007199254740993.*export --to files"):
        write_parquet(tmp_path / "foxes.parquet", rows, {"n": "float64"})


def test_a_number_beyond_64_bits_is_kept_as_text(tmp_path: Path) -> None:
    from jobs.column_kinds import kind_of

    write_parquet(tmp_path / "n.parquet", [{"n": 2**64}], {"n": kind_of(2**64)})
    assert pyarrow.parquet.read_table(tmp_path / "n.parquet")["n"].to_pylist() == [str(2**64)]


def test_a_target_appears_at_the_end_also_where_an_empty_folder_stands(tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()
    with appearing(target) as hidden:
        hidden.mkdir()
        (hidden / "one").write_text("1")
        assert not any(target.iterdir())
    assert files_of(tmp_path) == {"new/one": b"1"}


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError, "No space left.*free some space"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), OutputError, "Permission denied.*another place"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_nothing_is_left_of_a_target_that_was_not_finished(
    tmp_path: Path, error: BaseException, raised: type[BaseException], told: str | None, folder: bool
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(raised, match=told), appearing(place / "new") as hidden:
        if folder:
            hidden.mkdir()
            (hidden / "one").write_text("1")
        else:
            hidden.write_text("1")
        raise error
    assert not list(place.iterdir())


@pytest.mark.parametrize("folder", [True, False])
def test_what_was_put_in_a_targets_place_meanwhile_stays(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "new"
    with pytest.raises(OutputError, match="new: cannot be written"), appearing(target) as hidden:
        if folder:
            hidden.mkdir()
            target.mkdir()
            (target / "theirs").write_text("2")
        else:
            hidden.write_text("1")
            target.write_text("2")
    assert set(files_of(tmp_path).values()) == {b"2"}


def test_a_target_in_the_way_or_nowhere_is_refused(tmp_path: Path) -> None:
    output = fill(tmp_path / "out").path
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    check_free(tmp_path / "empty", output, folder=True)
    check_free(tmp_path / "new", output, folder=False)
    for target, folder, wrong in [
        (output, True, "lies in the output"),
        (output / "new", True, "lies in the output"),
        (tmp_path, True, "is there already"),
        (tmp_path / "file", True, "is there already"),
        (tmp_path / "file", False, "is there already"),
        (tmp_path / "empty", False, "a file that is not there yet"),
        (tmp_path / "dangling", True, "is there already"),
        (tmp_path / "no/new", True, "there is no folder"),
        (tmp_path / "file/new", True, "there is no folder"),
    ]:
        with pytest.raises(OutputError, match=wrong):
            check_free(target, output, folder=folder)


def test_a_text_with_unicodes_own_line_ends_stays_one_line(tmp_path: Path) -> None:
    row = {"file_name": "0.png", "text": "a\u2028b\x85c", "image_id": "0" * 16, "sha256": "", "job_id": "f-1"}
    target = Output(tmp_path / "new")
    write_shards(target, "files", iter([Picture(row, b"1")]), 9)
    (line,) = (target.path / "00000/metadata.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line) == {**row, "file_name": "000000000.png"}
