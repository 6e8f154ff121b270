"""A parquet is read by what its rows hold: a small file never takes gigabytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import ManifestError, OutputError
from jobs.output.output import Output
from jobs.output.parquet_pieces import MOST, TooMuch, open_bounded
from jobs.output.shard_table import read_table
from producer.doctor.checkup import check_output
from producer.export.parquet import write_pictures
from producer.export.parquet_source import open_parquet
from producer.export.pictures import open_output
from producer.manifest.manifest import Manifest
from producer.prompt_files.sources import lines
from tests.faults.bounds import bounded

MIB = 1 << 20
ROWS = {
    "text": ["a fox", "é", "", None, "a fox"],
    "bytes": [b"\0", b"", None, b"x" * 99, b"\0"],
    "number": [1, None, 3, 4, 5],
    "inner": [{"text": "a", "n": [1, 2]}, None, {"text": None, "n": None}, {"text": "a", "n": []}, None],
    "list": [["a", "b"], [], None, ["a"], ["b", None]],
    "map": [[("k", "v")], [], None, [("k", None)], [("j", "v")]],
}
SCHEMA = pa.schema(
    {
        "text": pa.string(), "bytes": pa.large_binary(), "number": pa.int64(),
        "inner": pa.struct({"text": pa.string(), "n": pa.list_(pa.int64())}), "list": pa.list_(pa.string()),
        "map": pa.map_(pa.string(), pa.string()),
    }
)  # fmt: skip


def _file(table: pa.Table, **options: Any) -> io.BytesIO:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"row_group_size": 2}])
@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("most", [MOST, 256])
def test_rows_come_back_as_they_were_whatever_the_pieces(
    options: dict[str, Any], rows: int, most: int
) -> None:
    table = open_bounded(_file(pa.table(ROWS, SCHEMA), **options))
    assert table.schema.equals(SCHEMA)
    found, numbers = [], []
    for number, batch in table.pieces(table.schema.names, rows, most):
        numbers.append(number)
        found += batch.to_pylist()
    assert found == pa.table(ROWS, SCHEMA).to_pylist()
    assert numbers == sorted(set(numbers)) and numbers[0] == 1
    assert {batch.column("text").type for _number, batch in table.pieces(["text"], 5)} == {pa.string()}


def _bomb(kind: str) -> pa.Table:
    long = "x" * (15 * MIB)
    match kind:
        case "texts":
            column = pa.DictionaryArray.from_arrays(pa.array([0] * 40), pa.array([long])).cast(pa.string())
        case "one text":
            column = pa.array(["x" * (80 * MIB)])
        case "in objects":
            column = pa.array([{"a": "x" * (15 * MIB)}] * 40)
        case _:
            column = pa.array([["x" * (20 * MIB)] * 20])
    return pa.table({"prompt": column})


@pytest.mark.parametrize("kind", ["one text", "in lists"])
def test_a_row_that_holds_more_than_any_is_refused(kind: str) -> None:
    file = _file(_bomb(kind), compression="zstd")
    assert file.tell() < MIB
    before, most = pa.total_allocated_bytes(), 0
    with pytest.raises(TooMuch) as caught:
        table = open_bounded(file)
        for _number, batch in table.pieces(table.schema.names, 4096):
            most = max(most, batch.nbytes)
    assert most == 0
    assert "holds more than 64 MiB" in str(caught.value)
    del caught
    assert pa.total_allocated_bytes() - before < 300 * MIB


@pytest.mark.parametrize("kind", ["texts", "in objects"])
def test_pieces_are_bounded_by_bytes_where_a_dictionary_repeats_a_text(kind: str) -> None:
    file = _file(_bomb(kind), compression="zstd")
    table = open_bounded(file)
    before, rows, most = pa.total_allocated_bytes(), 0, 0
    for _number, batch in table.pieces(table.schema.names, 4096):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == 40
    assert most < 300 * MIB, f"{most:,}"


def test_a_prompt_file_of_few_bytes_and_gigabytes_of_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(_bomb("one text"), path, compression="zstd")
    written = {"name": "cats", "model": "instant", "prompts_from": [str(path)]}
    with bounded(tmp_path), pytest.raises(ManifestError) as caught:
        list(lines(Manifest.from_json(written)))
    assert str(caught.value) == f"{path}:1: holds more than 16 MiB: write a prompt a row"


def _equal_rows(path: Path, millions: int) -> None:
    """Rows that say the same, ten thousand of them in each four bytes."""
    numbers = pa.array(bytearray(1_000_000), pa.int8())
    table = pa.table({"prompt": pa.DictionaryArray.from_arrays(numbers, pa.array(["a fox"]))})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(millions):
            writer.write_table(table)


def test_a_prompt_file_of_few_bytes_and_millions_of_equal_rows_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "p.parquet"
    _equal_rows(path, 21)
    written = {"name": "cats", "model": "instant", "prompts_from": [str(path)]}
    with pytest.raises(ManifestError) as caught:
        next(lines(Manifest.from_json(written)))
    size = path.stat().st_size
    assert str(caught.value) == (
        f"{path}: has 21,000,000 rows in {size:,} bytes, so most say the same: "
        "write a file that has each prompt once"
    )


def test_ten_million_rows_are_taken_however_small_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    _equal_rows(path, 10)
    assert path.stat().st_size < 100_000
    written = {"name": "cats", "model": "instant", "prompts_from": [str(path)]}
    assert next(lines(Manifest.from_json(written))).prompt == "a fox"


def test_an_exported_parquet_that_was_made_a_bomb_is_refused(rendered: Any, tmp_path: Path) -> None:
    output: Output = rendered(4)
    source, path = open_output(output), tmp_path / "foxes.parquet"
    records = list(source.records())
    kinds: dict[str, Any] = dict.fromkeys(("file_name", "text", "image_id", "sha256"), "string")
    chosen = [{name: record[name] for name in kinds} for record in records]
    found = list(source.pictures(lambda record: True))
    parts = [one.__class__(record, one.data) for one, record in zip(found, chosen, strict=True)]
    write_pictures(path, parts, kinds, None)
    assert len(list(open_parquet(path).records())) == 4
    table = pq.read_table(path)
    long = pa.array(["x" * (300 * MIB)] + [""] * 3)
    pq.write_table(table.set_column(2, "text", long), path, compression="zstd")
    with pytest.raises(OutputError, match=r"foxes\.parquet: .*row 1: holds more than 256 MiB"):
        list(open_parquet(path).records())


def test_a_table_beside_a_tar_that_was_made_a_bomb_is_reported(rendered: Any) -> None:
    output: Output = rendered(4, layout="webdataset")
    path = output.path / "00000.parquet"
    table = pq.read_table(path)
    name = table.schema.get_field_index("caption")
    long = pa.array(["x" * (80 * MIB)] + [""] * (table.num_rows - 1))
    pq.write_table(table.set_column(name, "caption", long), path, compression="zstd")
    with pytest.raises(ValueError, match="holds more than 64 MiB"):
        read_table(path.read_bytes())
    assert [(one.file, one.what) for one in check_output(output).problems] == [
        ("00000.parquet", "holds more than 64 MiB")
    ]


def test_two_columns_that_no_path_tells_apart_come_back_both() -> None:
    written = pa.table({"a.b": ["x"] * 5, "a": [{"b": "y"}] * 5})
    table = open_bounded(_file(written))
    found = [row for _number, batch in table.pieces(["a.b", "a"], 2) for row in batch.to_pylist()]
    assert found == written.to_pylist()


@pytest.mark.parametrize("rows", [3, 1000])
@pytest.mark.parametrize("repeated", [True, False])
def test_objects_whose_dictionary_was_given_up_come_back_as_they_were(rows: int, repeated: bool) -> None:
    many = [{"a": f"{n % 7 if repeated and n < 500 else n}" * 30, "l": [str(n), "x"]} for n in range(1000)]
    written = pa.table({"x": many})
    file = _file(written, dictionary_pagesize_limit=1000, data_page_size=2000, row_group_size=600)
    table = open_bounded(file)
    found = [row for _number, batch in table.pieces(["x"], rows) for row in batch.to_pylist()]
    assert found == written.to_pylist()
