"""Pictures in another form: the same bytes and metadata, whole or not at all, seen by foreign readers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.entry import Entry
from jobs.errors import OutputError
from jobs.output.column_kinds import kind_of
from jobs.output.contents import Contents, contents
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from producer.export.exact_records import json_column
from producer.export.parquet import write_pictures, write_records
from producer.export.parquet_source import ParquetSource, open_parquet
from producer.export.pictures import open_output
from producer.export.shards import write_shards
from producer.export.source import Picture, PictureSource, Record, check_exportable
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

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
        Entry.of(
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


def every(record: Record) -> bool:
    return True


def taken(output: Output) -> list[Picture]:
    return list(open_output(output).pictures(every))


def metadata(one: Picture) -> dict[str, Any]:
    """Its metadata, but for the name of its file."""
    return {name: value for name, value in one.record.items() if name != "file_name"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_outputs_pictures_come_in_order_with_their_metadata(tmp_path: Path, layout: LayoutName) -> None:
    found = taken(fill(tmp_path / "out", layout))
    assert [one.record["text"] for one in found] == TEXTS
    assert [one.suffix for one in found] == [".png"] * 6 + [".jpg"]
    assert all(hashlib.sha256(one.data).hexdigest() == one.record["sha256"] for one in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_pictures_that_are_asked_for_are_read(tmp_path: Path, layout: LayoutName) -> None:
    output = fill(tmp_path / "out", layout)
    wanted = {one.record["image_id"] for one in taken(output) if one.record["seed"] in {1, 4, 6}}
    found = open_output(output).pictures(lambda record: record["image_id"] in wanted)
    assert [one.record["seed"] for one in found] == [1, 4, 6]


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
    assert [metadata(one) for one in after] == [metadata(one) for one in before]
    names = [one.record["file_name"] for one in after]
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


def put(file: Path, found: list[Picture]) -> ParquetSource:
    """A parquet of the pictures, opened."""
    held = Contents()
    for one in found:
        held.add(one.record)
    write_pictures(file, found, held.columns, json_column((one.record for one in found), held.columns))
    return open_parquet(file)


def parquet_of(output: Output, file: Path) -> Path:
    return put(file, taken(output)).path


def test_datasets_reads_pictures_and_every_column_from_the_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    file = parquet_of(fill(tmp_path / "out"), tmp_path / "foxes.parquet")
    records = list(
        datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "hf"))
    )
    assert [record["text"] for record in records] == TEXTS
    assert [record["image"].size for record in records] == [(16, 16)] * 7
    assert [record["image"].getpixel((0, 0))[0] for record in records[:6]] == list(range(6))
    assert [record["weight"] for record in records] == [1.0, 0.5] + [None] * 5
    assert [record["tags"] for record in records[:2]] == [["a", "b"], []]
    assert [record["box"] for record in records[:2]] == [{"x": 1, "y": [2.5]}, None]
    assert [record["mixed"] for record in records[:2]] == ["text", '{"a": [1]}']
    assert [record["empty"] for record in records[:3]] == ["{}", "{}", None]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pyarrow_reads_the_files_own_bytes_and_the_metadata(tmp_path: Path, layout: LayoutName) -> None:
    output = fill(tmp_path / "out", layout)
    table = pyarrow.parquet.read_table(parquet_of(output, tmp_path / "foxes.parquet"))
    before = taken(output)
    assert [one["bytes"] for one in table["image"].to_pylist()] == [one.data for one in before]
    assert [one["path"] for one in table["image"].to_pylist()] == [one.record["file_name"] for one in before]
    changed = {"image", "weight", "tags", "box", "mixed", "empty", "imagemill_row"}
    plain = [{n: v for n, v in record.items() if n not in changed} for record in table.to_pylist()]
    assert plain == [{n: v for n, v in one.record.items() if n not in changed} for one in before]


def test_a_parquet_without_pictures_has_all_but_them(tmp_path: Path) -> None:
    output = fill(tmp_path / "out")
    records = [one.record for one in taken(output)]
    write_records(tmp_path / "foxes.parquet", records, contents(output).columns)
    table = pyarrow.parquet.read_table(tmp_path / "foxes.parquet")
    assert table.column_names == [*contents(output).columns]
    assert table["file_name"].to_pylist() == [record["file_name"] for record in records]


def test_equal_outputs_give_equal_parquets_of_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.export.parquet.GROUP_BYTES", 200)
    one, other = (parquet_of(fill(tmp_path / name), tmp_path / f"{name}.parquet") for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert pyarrow.parquet.ParquetFile(one).num_row_groups > 2


def test_a_parquet_that_cannot_hold_a_number_unchanged_is_refused(tmp_path: Path) -> None:
    records = [{"n": 2**53 + 1}, {"n": 0.5}]
    with pytest.raises(OutputError, match=r"9007199254740993.*export --to files"):
        write_records(tmp_path / "foxes.parquet", records, {"n": "float64"})


def test_a_number_beyond_64_bits_is_kept_as_text(tmp_path: Path) -> None:
    write_records(tmp_path / "n.parquet", [{"n": 2**64}], {"n": kind_of(2**64)})
    assert pyarrow.parquet.read_table(tmp_path / "n.parquet")["n"].to_pylist() == [str(2**64)]


def one_of(number: int, **columns: Any) -> Picture:
    """A picture of these columns."""
    data = bytes([number]) * (number + 1)
    record = {"file_name": f"{number:09d}.png", "text": "a fox", "image_id": f"{number:016x}"}
    return Picture({**record, **columns, "sha256": hashlib.sha256(data).hexdigest()}, data)


def as_written(found: list[Picture]) -> list[tuple[str, bytes]]:
    """The pictures, their records to the letter."""
    return [(json.dumps(one.record), one.data) for one in found]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shard_size", [1, 3, 1000])
def test_through_a_parquet_and_back_every_file_has_its_bytes(
    tmp_path: Path, layout: LayoutName, shard_size: int
) -> None:
    output = fill(tmp_path / "out", layout)
    straight, back = Output(tmp_path / "straight"), Output(tmp_path / "back")
    write_shards(straight, layout, iter(taken(output)), shard_size)
    source = put(tmp_path / "foxes.parquet", taken(output))
    write_shards(back, layout, source.pictures(every), shard_size)
    assert files_of(back.path) == files_of(straight.path)
    again = put(tmp_path / "again.parquet", list(source.pictures(every)))
    assert again.path.read_bytes() == source.path.read_bytes()
    assert [json.dumps(record) for record in source.records()] == [
        json.dumps(one.record) for one in taken(output)
    ]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.text(max_size=2) | st.sampled_from(["imagemill_row", "a.b", "a", "image.bytes"])


@settings(max_examples=120, deadline=None)
@given(st.lists(st.dictionaries(_NAMES, _VALUES, max_size=4), min_size=1, max_size=4))
def test_whatever_json_a_record_holds_comes_back_to_the_letter(
    tmp_path_factory: pytest.TempPathFactory, columns: list[dict[str, Any]]
) -> None:
    before = [
        Picture({**one.record, **record}, one.data)
        for number, record in enumerate(columns)
        for one in [one_of(number)]
    ]
    try:
        source = put(tmp_path_factory.mktemp("any") / "any.parquet", before)
    except OutputError as error:
        assert "cannot hold all its values unchanged" in str(error)
        return
    assert as_written(list(source.pictures(every))) == as_written(before)
    assert [json.dumps(record) for record in source.records()] == [json.dumps(one.record) for one in before]


def test_only_records_that_the_columns_do_not_hold_are_kept_as_json_too(tmp_path: Path) -> None:
    plain = put(tmp_path / "plain.parquet", [one_of(0, a=1, b={"c": [0.5]}), one_of(1, a=None, b=None)])
    assert plain.json_column is None
    assert pyarrow.parquet.read_schema(plain.path).names[-3:] == ["a", "b", "sha256"]
    records = [
        one_of(0, a=1, b={"c": [0.5]}),
        one_of(1, a=2),
        one_of(2, b={"c": [1]}, a=3),
        one_of(3, a=4, b={}),
    ]
    odd = put(tmp_path / "odd.parquet", records)
    assert odd.json_column == "imagemill_row"
    texts = pyarrow.parquet.read_table(odd.path)["imagemill_row"].to_pylist()
    assert texts == [None, *(json.dumps(one.record) for one in records[1:])]
    assert as_written(list(odd.pictures(every))) == as_written(records)


def test_only_the_pictures_that_are_asked_for_come_out_of_a_parquet(tmp_path: Path) -> None:
    source = put(tmp_path / "foxes.parquet", [one_of(number) for number in range(40)])
    wanted = {f"{number:016x}" for number in (1, 17, 39)}
    found = list(source.pictures(lambda record: record["image_id"] in wanted))
    assert as_written(found) == as_written([one_of(1), one_of(17), one_of(39)])


def test_a_parquet_of_one_row_group_is_read_some_pictures_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 20
    monkeypatch.setattr("producer.export.parquet.GROUP_BYTES", 64 * size)
    data = np.random.default_rng(0).bytes(size)
    one = Picture({**one_of(0).record, "sha256": hashlib.sha256(data).hexdigest()}, data)
    source = put(tmp_path / "large.parquet", [one] * 64)
    assert pyarrow.parquet.ParquetFile(source.path).num_row_groups == 1
    before = pyarrow.total_allocated_bytes()
    held = [pyarrow.total_allocated_bytes() - before for _picture in source.pictures(every)]
    assert len(held) == 64
    assert max(held) < 40 * size
    held = [pyarrow.total_allocated_bytes() - before for _record in source.records()]
    assert max(held) < 4 * size


def rewritten(source: ParquetSource, table: pyarrow.Table) -> Path:
    """The parquet's file with another table, as a stranger's tool would write it."""
    pyarrow.parquet.write_table(table, source.path)
    return source.path


def with_column(table: pyarrow.Table, name: str, values: list[Any]) -> pyarrow.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.field(place), pyarrow.array(values, table.field(place).type))


def marked(table: pyarrow.Table, mark: str | None) -> pyarrow.Table:
    """The table with another mark of ours in its schema."""
    others = {b"huggingface": table.schema.metadata[b"huggingface"]}
    return table.replace_schema_metadata(others if mark is None else {**others, b"imagemill": mark})


def with_plain_images(table: pyarrow.Table) -> pyarrow.Table:
    """The table with the pictures' bytes alone, not the hub's struct."""
    files = pyarrow.array([one["bytes"] for one in table["image"].to_pylist()])
    return table.set_column(table.column_names.index("image"), "image", files)


ODD = [one_of(0, a=1), one_of(1, a="1"), one_of(2)]
"""Records of which the last two and the first are kept as JSON too."""


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda table: table.drop_columns(["image"]), "holds no pictures in a column 'image'"),
        (with_plain_images, "holds no pictures in a column 'image'"),
        (lambda table: marked(table, None), "another program or an older imagemill wrote it"),
        (lambda table: marked(table, '{"rows": 2, "column": null}'), "a newer one wrote it"),
        (lambda table: marked(table, "{"), "a newer one wrote it"),
        (
            lambda table: table.drop_columns(["imagemill_row"]),
            "has no column 'imagemill_row' of text any more",
        ),
        (lambda table: table.drop_columns(["sha256"]), "has no column 'sha256'"),
        (lambda table: table.append_column("text", table["text"]), "two columns of one name"),
        (
            lambda table: table.append_column("day", pyarrow.array([1, 2, 3], pyarrow.date32())),
            r"its column 'day' is of type date32\[day\], which is no JSON",
        ),
    ],
)
def test_a_parquet_of_which_records_do_not_come_back_is_refused(
    tmp_path: Path, change: Callable[[pyarrow.Table], pyarrow.Table], wrong: str
) -> None:
    source = put(tmp_path / "foxes.parquet", ODD)
    rewritten(source, change(pyarrow.parquet.read_table(source.path)))
    with pytest.raises(OutputError, match=rf"foxes\.parquet: .*{wrong}.*; name an output, or a parquet that"):
        open_parquet(source.path)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("PAR1 a fox PAR1")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "empty", "pipe", "none"):
        with pytest.raises(OutputError, match=f"{name}: cannot be read as a parquet"):
            open_parquet(tmp_path / name)


@pytest.mark.parametrize(
    ("column", "values", "wrong"),
    [
        ("file_name", ["000000000.png", "../secret.png", "000000002.png"], "row 2: .*file_name"),
        ("image_id", ["0" * 16, None, "2" * 16], "row 2: .*image_id"),
        ("text", ["a fox", None, "a fox"], "row 2: .*text"),
        ("image", [{"bytes": one_of(0).data, "path": ""}, None, None], "row 2: its picture is missing"),
        (
            "image",
            [{"bytes": one_of(0).data, "path": ""}, {"bytes": b"x", "path": ""}, None],
            r"row 2: 000000001\.png is not the picture that was written \(SHA-256\)",
        ),
    ],
)
def test_an_unsound_record_of_a_parquet_is_named_with_a_remedy_for_parquets(
    tmp_path: Path, column: str, values: list[Any], wrong: str
) -> None:
    source = put(tmp_path / "foxes.parquet", [one_of(number) for number in range(3)])
    rewritten(source, with_column(pyarrow.parquet.read_table(source.path), column, values))
    remedy = "nothing was exported: restore the file, or export the output that it was made of again$"
    with pytest.raises(OutputError, match=rf"^/.*foxes\.parquet: {wrong}.*; {remedy}"):
        list(open_parquet(source.path).pictures(every))


@pytest.mark.parametrize(
    ("column", "values", "wrong"),
    [
        ("text", ["a fox", "a fox", "a cat"], "row 3: its imagemill_row has another text than the column"),
        ("a", ["1", "1", "1"], "row 3: its imagemill_row has another a than the column"),
        ("imagemill_row", ["{", None, None], "row 1: its imagemill_row is not JSON"),
        ("imagemill_row", ["[]", None, None], "row 1: its imagemill_row is not a JSON object"),
        ("imagemill_row", ['{"b": 1}', None, None], "row 1: its imagemill_row has b, which is no column"),
    ],
)
def test_columns_and_json_that_do_not_agree_are_refused(
    tmp_path: Path, column: str, values: list[Any], wrong: str
) -> None:
    source = put(tmp_path / "foxes.parquet", ODD)
    rewritten(source, with_column(pyarrow.parquet.read_table(source.path), column, values))
    with pytest.raises(OutputError, match=rf"foxes\.parquet: {wrong}.*; nothing was exported: restore"):
        list(open_parquet(source.path).records())


def test_records_that_another_tool_chose_and_ordered_anew_come_back_exactly(tmp_path: Path) -> None:
    source = put(tmp_path / "foxes.parquet", ODD)
    rewritten(source, pyarrow.parquet.read_table(source.path).take([2, 0]))
    assert as_written(list(open_parquet(source.path).pictures(every))) == as_written([ODD[2], ODD[0]])


def test_a_parquet_that_changed_between_two_looks_at_it_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "foxes.parquet", ODD)
    rewritten(source, pyarrow.parquet.read_table(source.path).slice(1))
    with pytest.raises(OutputError, match=r"foxes\.parquet: changed while it was being read: run the same"):
        list(source.pictures(every))


def test_a_changed_byte_of_a_parquet_is_reported_or_changes_nothing(tmp_path: Path) -> None:
    found = [one_of(number, note="vulpes", box={"x": [number]}) for number in range(5)]
    source = put(tmp_path / "foxes.parquet", [*found, one_of(5)])
    data, refused = source.path.read_bytes(), 0
    for place in range(0, len(data), 23):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        source.path.write_bytes(changed)
        try:
            after = as_written(list(open_parquet(source.path).pictures(every)))
        except OutputError as error:
            assert str(error).startswith(f"{source.path}: ")
            assert str(error).isprintable()
            refused += 1
        else:
            assert after == as_written([*found, one_of(5)])
    assert refused > len(data) // 23 // 2


def test_a_record_that_not_every_form_holds_is_refused_by_its_image(tmp_path: Path) -> None:
    source: PictureSource = open_output(fill(tmp_path / "out"))
    for record in source.records():
        check_exportable(source, record)
    lacking: Record = {"file_name": "0.png", "image_id": "0" * 16}
    with pytest.raises(OutputError, match=f"out: image {'0' * 16}: .*no text; .*imagemill doctor"):
        check_exportable(source, lacking)
    with pytest.raises(OutputError, match=f"out: image {'0' * 16}: .*half a surrogate pair.*remove it there"):
        check_exportable(source, {**lacking, "text": "", "note": ["\ud800"]})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_records_of_one_file_are_refused(tmp_path: Path, layout: LayoutName) -> None:
    target = Output(tmp_path / "new")
    write_shards(target, layout, iter([one_of(0), one_of(1)]), 9)
    if layout == "files":
        file = target.path / "00000/metadata.jsonl"
        file.write_bytes(file.read_bytes().replace(b"000000001.png", b"000000000.png"))
    else:
        file = target.path / "00000.tar"
        file.write_bytes(file.read_bytes().replace(b'"000000001.png"', b'"000000000.png"'))
    with pytest.raises(OutputError, match=r"two records are of 000000000\.png"):
        taken(target)


def test_a_text_with_unicodes_own_line_ends_stays_one_line(tmp_path: Path) -> None:
    record = {
        "file_name": "0.png",
        "text": "a\u2028b\x85c",
        "image_id": "0" * 16,
        "sha256": "",
        "job_id": "f-1",
    }
    target = Output(tmp_path / "new")
    write_shards(target, "files", iter([Picture(record, b"1")]), 9)
    (line,) = (target.path / "00000/metadata.jsonl").read_bytes().split(b"\n")[:-1]
    assert json.loads(line) == {**record, "file_name": "000000000.png"}
