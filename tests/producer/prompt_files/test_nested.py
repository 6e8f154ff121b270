"""Values in objects of a row are named by their path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.prompt_files.sources import lines

ROWS = [
    {"data": {"prompt": "a heron", "size": {"w": 72}}, "meta": {"seed": 4, "score": 0.5}},
    {"data": {"prompt": "a stoat", "size": None}, "meta": None},
]
FIELDS = {"prompt": "data.prompt", "width": "data.size.w", "seed": "meta.seed"}


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def _given(file: Path, **source: Any) -> list[Line]:
    found = {"name": "a", "model": "instant", "prompts_from": [{"file": str(file)} | source]}
    return list(lines(Manifest.from_json(found)))


def _refused(file: Path, **source: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _given(file, **source)
    return [one.removeprefix(f"{file}:") for one in str(caught.value).split("\n")]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_fields_and_columns_lead_into_objects(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    _write(file, ROWS)
    first, second = _given(file, fields=FIELDS, columns={"score": "meta.score"})
    assert (first.prompt, first.settings, first.seeds) == ("a heron", {"width": 72}, range(4, 5))
    assert (first.columns, second.columns) == ({"score": 0.5}, {})
    assert (second.prompt, second.settings, second.seeds) == ("a stoat", {}, None)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_what_else_an_opened_object_holds_is_asked_about(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    _write(file, ROWS)
    (said,) = _refused(file, fields=FIELDS)
    assert "meta.score: no such key: write prompts_from: {" in said
    assert "columns: [meta.score]} to keep it in the metadata" in said
    for asked in ({"columns": ["meta.score"]}, {"ignore": ["meta.score"]}, {"ignore_others": True}):
        assert [line.prompt for line in _given(file, fields=FIELDS, **asked)] == ["a heron", "a stoat"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_an_object_may_be_kept_whole_too(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    _write(file, ROWS[:1])
    (line,) = _given(file, fields=FIELDS, columns=["meta"])
    assert line.seeds == range(4, 5)
    assert line.columns == {"meta": {"seed": 4, "score": 0.5}}


def test_an_object_that_no_path_leads_into_stays_one_column(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"prompt": "a", "meta": {"score": 1}}])
    (said,) = _refused(file)
    assert said.startswith("1: meta: no such key")
    (line,) = _given(file, columns=["meta"])
    assert line.columns == {"meta": {"score": 1}}


def test_a_name_with_a_dot_is_a_name_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"data.prompt": "a", "data": {"note": "x"}}, {"data": {"prompt": "b"}}])
    found = _given(file, fields={"prompt": "data.prompt"}, ignore=["data.note"])
    assert [line.prompt for line in found] == ["a", "b"]
    (tmp_path / "p.csv").write_text("data.prompt,a.b\na,7\n")
    (line,) = _given(tmp_path / "p.csv", fields={"prompt": "data.prompt"}, columns=["a.b"])
    assert (line.prompt, line.columns) == ("a", {"a.b": "7"})


def test_a_name_that_is_a_path_too_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"data.prompt": "a", "data": {"prompt": "b"}}])
    assert _refused(file, fields={"prompt": "data.prompt"}) == [
        "1: data.prompt: is a name in this row and a path too: rename one"
    ]


def test_what_is_no_object_where_a_path_leads_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"data": "a"}, {"data": [{"prompt": "a"}]}, {"data": {}}, {}])
    assert _refused(file, fields={"prompt": "data.prompt"}) == [
        "1: data: is no object, and the manifest names data.prompt in it",
        "2: data: is no object, and the manifest names data.prompt in it",
        "3: data.prompt: is missing: add it",
        "4: data.prompt: is missing: add it",
    ]


def test_a_wrong_value_is_told_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"data": {"prompt": "a", "size": {"w": 9}}}])
    assert _refused(file, fields=FIELDS) == ["1: data.size.w = 9: must be a multiple of 8 (8 or 16)"]


def test_one_argument_of_the_call_may_lie_in_an_object(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"prompt": "a", "extra": {"eta": 0.5}}, {"prompt": "b", "arguments": {"eta": 1}}])
    found = _given(file, fields={"arguments.eta": "extra.eta"})
    assert [line.settings["arguments"] for line in found] == ['{"eta":0.5}', '{"eta":1}']


def test_a_json_of_one_object_is_one_prompt_by_a_path_too(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"data": {"prompt": "a lynx"}}')
    assert [line.prompt for line in _given(file, fields={"prompt": "data.prompt"})] == ["a lynx"]


def test_a_struct_without_what_a_path_names_is_refused_before_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    _write(file, ROWS)
    (said,) = _refused(file, fields={"prompt": "data.text"}, ignore_others=True)
    assert said == " data.text: there is no such column"


def test_where_the_prompt_lies_in_an_object_its_path_is_offered(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    _write(file, [{"data": {"caption": "a fox", "seed": 3, "note": "x"}, "tag": 1}])
    (said,) = _refused(file)
    assert said.startswith(
        "1: data.caption, data.seed, data.note, tag: no such keys: did you mean prompt, seed? Write "
        f"prompts_from: {{file: {file}, fields: {{prompt: data.caption}}, columns: "
        "[data.seed, data.note, tag]} "
    )
    (line,) = _given(
        file, fields={"prompt": "data.caption", "seed": "data.seed"}, columns=["data.note", "tag"]
    )
    assert (line.prompt, line.seeds, line.columns) == ("a fox", range(3, 4), {"data.note": "x", "tag": 1})


def test_the_keys_of_a_mapping_are_ids_unless_a_path_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"k1": {"prompt": "a", "meta": {"id": 7}}, "k2": {"prompt": "b", "meta": {"id": 8}}}')
    assert [line.id for line in _given(file, fields={"id": "meta.id"})] == ["7", "8"]
    assert [line.id for line in _given(file, ignore=["meta"])] == ["k1", "k2"]


def test_what_coco_has_beside_its_captions_may_be_declined(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"images": [], "annotations": [{"id": 5, "image_id": 9, "caption": "a dog"}]}')
    (line,) = _given(file, fields={"prompt": "caption", "id": "id"}, ignore=["image_id"])
    assert (line.prompt, line.id) == ("a dog", "5")
