"""A .json is read in each form that people have, or refused with what it holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.prompt_source import PromptSource
from producer.prompt_files.json_file import records
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines

COCO = {
    "info": {"year": 2014, "odd": "] }"},
    "images": [{"id": 42, "file_name": "000042.jpg", "height": 480}],
    "annotations": [
        {"image_id": 42, "id": 641, "caption": "A shelf with shoes on it."},
        {"image_id": 43, "id": 642, "caption": 'A "sign", [red].'},
    ],
    "licenses": [],
}


def _given(file: Path, contents: object, *, skip: bool = False, **source: Any) -> list[Line]:
    text = contents if isinstance(contents, str) else json.dumps(contents, ensure_ascii=False)
    file.write_text(text, "utf-8")
    found = {"name": "cats", "model": "instant", "prompts_from": [{"file": str(file), **source}]}
    return list(lines(Manifest.from_json(found | {"on_bad_row": "skip" if skip else "stop"}), Reading()))


def _trouble(file: Path, contents: object, **source: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _given(file, contents, **source)
    return str(caught.value).replace(f"{file}:", "").split("\n")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "contents",
    [
        ["a fox 🦊", 'a "hen"'],
        [{"prompt": "a fox 🦊"}, 'a "hen"'],
        {"prompts": ["a fox 🦊", {"prompt": 'a "hen"'}]},
        {"data": {"k1": "a fox 🦊", "k2": 'a "hen"'}},
        {"k1": "a fox 🦊", "k2": {"prompt": 'a "hen"'}},
    ],
)
def test_prompts_in_a_list_a_mapping_or_beneath_one_key_are_read(
    tmp_path: Path, contents: object, indent: int | None
) -> None:
    for ensure_ascii in (True, False):
        text = json.dumps(contents, indent=indent, ensure_ascii=ensure_ascii)
        given = _given(tmp_path / "p.json", text)
        assert [line.prompt for line in given] == ["a fox 🦊", 'a "hen"']


def test_the_key_of_a_mapping_is_the_id_of_its_prompt(tmp_path: Path) -> None:
    contents = {
        "k1": "a",
        "2": {"prompt": "b", "seed": 3},
        "k3": {"id": "k3", "prompt": "c"},
        "7": {"prompt": "d", "id": 7},
    }
    given = _given(tmp_path / "p.json", contents)
    assert [(line.id, line.prompt) for line in given] == [("k1", "a"), ("2", "b"), ("k3", "c"), ("7", "d")]
    assert given[1].seeds == range(3, 4)
    named = _given(
        tmp_path / "p.json",
        {"k1": {"caption": "a", "key": "own"}, "k2": {"caption": "b"}},
        fields={"prompt": "caption", "id": "key"},
    )
    assert [(line.id, line.prompt) for line in named] == [("own", "a"), ("k2", "b")]
    (found,) = _trouble(tmp_path / "p.json", {"k1": "a", "k2": {"prompt": "b", "id": "k3"}})
    assert found == '1["k2"]: has the id k3 too: to take it, write `fields: {id: id}`'
    (taken,) = _given(tmp_path / "p.json", {"k2": {"prompt": "b", "id": "k3"}}, fields={"id": "id"})
    assert taken.id == "k3"


def test_one_object_is_one_prompt_and_several_after_each_other_are_several(tmp_path: Path) -> None:
    one = {"prompt": "a fox", "negative_prompt": "blurry", "id": "x"}
    (line,) = _given(tmp_path / "p.json", one)
    assert (line.prompt, line.id, line.settings) == ("a fox", "x", {"negative_prompt": "blurry"})
    text = "\n".join(json.dumps({"prompt": f"fox {n}"}) for n in range(3))
    assert [line.prompt for line in _given(tmp_path / "p.json", text)] == ["fox 0", "fox 1", "fox 2"]


def test_cocos_captions_are_read_under_the_names_that_fields_gives(tmp_path: Path) -> None:
    given = _given(tmp_path / "p.json", COCO, fields={"prompt": "caption", "id": "image_id"})
    assert [(line.id, line.prompt) for line in given] == [
        ("42", "A shelf with shoes on it."),
        ("43", 'A "sign", [red].'),
    ]
    own = _given(tmp_path / "p.json", COCO, fields={"prompt": "caption", "id": "id"})
    assert [line.id for line in own] == ["641", "642"]
    assert [line.id for line in _given(tmp_path / "p.json", COCO, fields={"prompt": "caption"})] == [None] * 2
    (found, *_) = _trouble(tmp_path / "p.json", COCO)
    assert found.startswith("1[0]: caption: no such key: did you mean prompt?")


def test_an_object_without_prompts_is_refused_with_its_keys_and_the_command(tmp_path: Path) -> None:
    (found,) = _trouble(tmp_path / "p.json", {"version": 3, "items": ["a"], "more": {}})
    assert found == (
        "1:1: holds no list of prompts, but an object with version, items, more: write the list alone "
        "(jq '.items' p.json > prompts.json)"
    )
    many = {f"key {number}": number for number in range(50)}
    (found,) = _trouble(tmp_path / "p.json", many)
    assert "key 9, …: write the list alone" in found


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        ('"a fox"', '1:1: holds no list of prompts: write ["a fox", …]'),
        ("a fox\na hen\n", "1:1: holds no list of prompts: write"),
        ('["a",\n "b"', "2:5: not JSON: Expecting ',' delimiter"),
        ('["a,\n "b"]', "1:5: not JSON: Invalid control character"),
        ('["a"\n "b"]', "2:2: not JSON: Expecting ',' delimiter"),
        ('["a",\n]', "1:5: not JSON: Illegal trailing comma"),
        ('["a", {"prompt": \n"b",}]', "2:5: not JSON: "),
        ("[,]", "1:2: not JSON: Expecting value"),
        ('["a" } ]', "1:8: not JSON: Expecting value"),
        ('{"a": "b", 7: "c"}', "1:12: not JSON: Expecting property name enclosed in double quotes"),
        ('{"a" "b"}', "1:6: not JSON: Expecting ':' delimiter"),
        ('["a"] ["b"]', "1:7: holds no list of prompts: write"),
        ("[fox]", "1:2: not JSON: Expecting value"),
    ],
)
def test_what_is_not_json_is_refused_at_its_place(tmp_path: Path, contents: str, error: str) -> None:
    found = _trouble(tmp_path / "p.json", contents)
    assert found[0].startswith(error)
    with pytest.raises(ManifestError):
        _given(tmp_path / "p.json", contents, skip=True)


@settings(max_examples=1000, deadline=None)
@given(text=st.text(st.sampled_from('[]{}"":,, \n\\a1'), max_size=14).map(lambda text: f"[{text}]"))
def test_a_list_is_read_as_python_reads_it_or_refused_as_there(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "list.json"
    file.write_text(text, "utf-8")
    try:
        meant = json.loads(text)
    except ValueError:
        meant = None
    found = None
    try:
        found = [row for _, row in records(file, PromptSource(file=str(file)))]
    except ManifestError as error:
        assert meant is None
        assert str(error).startswith(f"{file}:")
    if meant is not None:
        assert found is not None
        assert len(found) == len(meant)
        texts = [row["prompt"] for row in found if isinstance(row, dict) and row.keys() == {"prompt"}]
        assert texts == [value for value in meant if isinstance(value, str)]
    else:
        # Of a wrong value, and a key twice, only Python's own reader says nothing.
        assert found is None or any(isinstance(row, ManifestError) for row in found)


def test_a_wrong_value_is_a_mistake_of_its_own(tmp_path: Path) -> None:
    contents = '["a",\n 7, {"prompt": 8}, {"prompt": "b", "prompt": "c"}, null, ["d"],'
    contents += '\n {"prompt": "e", "width": 9}]'
    assert [error.partition(": ")[0] for error in _trouble(tmp_path / "p.json", contents)] == [
        "2[1]", "2[2]", "2[3]", "2[4]", "2[5]", "3[6]",
    ]  # fmt: skip
    assert [line.prompt for line in _given(tmp_path / "p.json", contents, skip=True)] == ["a"]
    twice = '{"k": "a", "k": "b"}'
    assert _trouble(tmp_path / "p.json", twice) == ['1["k"]: the key occurs twice: remove one']


def test_a_bare_text_has_no_other_name_for_its_prompt(tmp_path: Path) -> None:
    (found,) = _trouble(tmp_path / "p.json", ["a"], fields={"prompt": "caption"})
    assert found == "1[0]: is a text, and `fields` calls the prompt caption: remove it from `fields`"


def test_bytes_that_are_no_utf8_cost_their_own_value(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(b'["a", "\xfc", "b"]')
    found = {"name": "cats", "model": "instant", "prompts_from": [str(file)], "on_bad_row": "skip"}
    reading = Reading()
    assert [line.prompt for line in lines(Manifest.from_json(found), reading)] == ["a", "b"]
    assert reading.skipped_rows[0].startswith(f"{file}:1[1]: is not UTF-8 (byte 0xfc)")


def test_more_than_is_held_is_refused_packed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.prompt_files.json_file.MOST", 1000)
    (found,) = _trouble(tmp_path / "p.json", ["x" * 2000])
    assert found == (
        " holds more than 1,000 characters, and a .json is held whole: make it .jsonl, an object a line "
        "(jq -c '.[]' p.json > prompts.jsonl)"
    )
    file = tmp_path / "q.json.gz"
    file.write_bytes(gzip.compress(b"[" + b'"a",' * 1000 + b'"b"]'))
    manifest = Manifest.from_json({"name": "cats", "model": "instant", "prompts_from": [str(file)]})
    with pytest.raises(ManifestError, match="holds more than 1,000 characters"):
        list(lines(manifest))
