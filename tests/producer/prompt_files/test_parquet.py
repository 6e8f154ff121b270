"""A .parquet's columns are taken for what they mean, whatever type pandas gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines


def _given(file: Path, on_bad_row: str = "stop", **source: Any) -> tuple[list[Line], list[str]]:
    """The lines and what is said of the rows that are skipped."""
    found = {"name": "cats", "model": "instant", "prompts_from": [{"file": str(file)} | source]}
    reading = Reading()
    given = list(lines(Manifest.from_json(found | {"on_bad_row": on_bad_row}), reading))
    return given, [row.removeprefix(f"{file}:") for row in reading.skipped_rows]


def test_what_pandas_makes_of_whole_numbers_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    whole, decimal = pyarrow.int64(), pyarrow.float64()
    columns = {
        "prompt": ["a", "b", "c"],
        "id": pyarrow.array([7, -(2**63), 2**63 - 1], whole),
        "cfg": pyarrow.array([3, 1, 7], whole),
        "seed": pyarrow.array([1, None, 2**53 - 1], decimal),
        "num_inference_steps": pyarrow.array([30, None, None], decimal),
        "height": pyarrow.array([64, None, None], pyarrow.float16()),
        "width": pyarrow.array([72, None, None], pyarrow.float32()),
        "images_per_prompt": pyarrow.array([None, None, 2], decimal),
    }
    parquet.write_table(pyarrow.table(columns), file)
    given, _ = _given(file, fields={"guidance_scale": "cfg"})
    assert [line.id for line in given] == ["7", str(-(2**63)), str(2**63 - 1)]
    assert [line.seeds for line in given] == [range(1, 2), None, range(2**53 - 1, 2**53 + 1)]
    sizes = {"num_inference_steps": 30, "height": 64, "width": 72}
    assert given[0].settings == sizes | {"guidance_scale": 3.0}
    assert {type(given[0].settings[name]) for name in sizes} == {int}
    assert [line.images for line in given] == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "kind", "value", "error"),
    [
        (
            "seed",
            "double",
            2.5,
            "2.5: must be a whole number, or null: round it: cast the column from double to int64",
        ),
        ("seed", "double", float("nan"), "NaN: must be a whole number, or null"),
        ("seed", "double", float("inf"), "Infinity: must be a whole number, or null"),
        (
            "seed",
            "double",
            2.0**53,
            "9007199254740992.0: may have been another number: from 2**53 on double is not exact",
        ),
        (
            "seed",
            "float",
            2.0**24,
            "16777216.0: may have been another number: from 2**24 on float is not exact",
        ),
        (
            "seed",
            "halffloat",
            2.0**11,
            "2048.0: may have been another number: from 2**11 on halffloat is not exact",
        ),
        ("seed", "double", -2.0, "-2: must be at least 0"),
        ("seed", "bool", True, "true: must be a whole number: cast the column from bool to int64"),
        ("height", "string", "64", '"64": must be a whole number: cast the column from string to int64'),
        ("height", "double", 65.0, "65: must be a multiple of 8 (64 or 72)"),
        ("guidance_scale", "string", "7", '"7": must be a number: cast the column from string to double'),
        ("id", "double", 1.0, "1.0: must be text or a whole number: cast the column from double to int64"),
        ("negative_prompt", "int64", 7, "7: must be text: cast the column from int64 to string"),
        ("scheduler", "binary", b"LMS", "\"b'LMS'\": must be text: cast the column from binary to string"),
    ],
)
def test_a_value_of_another_type_is_reported_with_what_mends_it(
    tmp_path: Path, name: str, kind: str, value: object, error: str
) -> None:
    file = tmp_path / "p.parquet"
    column = pyarrow.array([None, value], pyarrow.type_for_alias(kind))
    parquet.write_table(pyarrow.table({"prompt": ["a", "b"], name: column}), file)
    given, found = _given(file, "skip")
    assert [line.prompt for line in given] == ["a"]
    assert found[0].startswith(f"2: {name} = {error}")


def test_all_that_is_wrong_with_a_rows_types_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    parquet.write_table(
        pyarrow.table({"prompt": ["a", "b"], "seed": [0.5, 1.0], "width": ["x" * 99, None]}), file
    )
    _, (found,) = _given(file, "skip")
    shown = "x" * 58
    assert found == (
        "1: seed = 0.5: must be a whole number, or null: round it: cast the column from double to int64; "
        f'width = "{shown}…: must be a whole number: cast the column from string to int64'
    )


def test_categories_are_texts_and_a_column_of_the_users_keeps_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    texts = [pyarrow.array([a, b]).dictionary_encode() for a, b in ("ab", "xy")]
    columns = [*texts, pyarrow.array([1.0, 2.0]), pyarrow.array([1, 2])]
    parquet.write_table(pyarrow.table(columns, ["prompt", "id", "score", "rank"]), file)
    given, _ = _given(file, columns=["score", "rank"])
    assert [(line.prompt, line.id) for line in given] == [("a", "x"), ("b", "y")]
    assert [type(value) for value in given[0].columns.values()] == [float, int]


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("ignore_others", [True, False])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, rows: int, ignore_others: bool) -> None:
    file = tmp_path / "p.parquet"
    columns = [pyarrow.array(["a"] * rows, pyarrow.string())] * 3
    parquet.write_table(pyarrow.table(columns, ["prompt", "n", "n"]), file)
    with pytest.raises(ManifestError) as caught:
        _given(file, ignore_others=ignore_others)
    assert str(caught.value) == f"{file}: n occurs twice: rename one"


@pytest.mark.parametrize("rows", [0, 1])
def test_a_tables_names_are_checked_before_there_are_rows(tmp_path: Path, rows: int) -> None:
    file = tmp_path / "p.parquet"
    texts = pyarrow.array(["a"] * rows, pyarrow.string())
    for names, source, error in [
        (["prompt", "kex"], {}, "kex: no such key: "),
        (["caption", "id"], {"ignore_others": True}, "prompt: there is no such column"),
        (["prompt", "x"], {"ignore_others": True, "columns": ["y"]}, "y: there is no such column"),
    ]:
        parquet.write_table(pyarrow.table([texts, texts], names), file)
        with pytest.raises(ManifestError) as caught:
            _given(file, **source)
        assert str(caught.value).startswith(f"{file}: {error}")
