"""Columns are fields under our names or others', or are kept, renamed, declined, or told as unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
import yaml
from pyarrow import parquet

from jobs.errors import ManifestError
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines


def _given(
    file: Path, /, reading: Reading | None = None, on_bad_row: str = "stop", **source: Any
) -> list[Line]:
    found = {"name": "a", "model": "instant", "prompts_from": [{"file": str(file)} | source]}
    return list(lines(Manifest.from_json(found | {"on_bad_row": on_bad_row}), reading))


def _refused(file: Path, /, **source: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _given(file, **source)
    return [one.removeprefix(f"{file}:") for one in str(caught.value).split("\n")]


def _to_paste(said: str) -> list[dict[str, Any]]:
    """The entries of `prompts_from` that a message holds."""
    found = []
    for part in said.split("prompts_from: ")[1:]:
        depth = 0
        for end, one in enumerate(part):
            depth += (one == "{") - (one == "}")
            if depth == 0:
                found.append(yaml.safe_load(part[: end + 1]))
                assert Path(found[-1]["file"]).is_absolute(), "as the manifest writes it"
                found[-1]["file"] = Path(found[-1]["file"]).name
                break
    return found


@pytest.mark.parametrize(
    "header",
    [
        "Prompt,Negative Prompt,Seed,Steps,CFG Scale,Sampler,Width,Height",
        "prompt,negative_prompt,seed,steps,cfg_scale,sampler_name,width,height",
        "PROMPT,Negative prompt,SEED,sampling steps,cfg,SAMPLER NAME,WIDTH,HEIGHT",
        "prompt,negative-prompt,seed,num inference steps,Guidance Scale,scheduler,width,height",
    ],
)
def test_the_words_of_a1111_are_fields_in_any_case(tmp_path: Path, header: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(f"{header}\na crane,grey,5,20,6.5,Euler a,64,72\n")
    (line,) = _given(file)
    assert (line.prompt, line.seeds) == ("a crane", range(5, 6))
    assert line.settings == {
        "negative_prompt": "grey", "num_inference_steps": 20, "guidance_scale": 6.5, "scheduler": "Euler a",
        "width": 64, "height": 72,
    }  # fmt: skip


def test_other_words_are_fields_in_jsonl_and_parquet_too(tmp_path: Path) -> None:
    row = {"Prompt": "a", "CFG Scale": 3.0, "Steps": 7}
    (tmp_path / "p.jsonl").write_text('{"Prompt": "a", "CFG Scale": 3.0, "Steps": 7}\n')
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "p.parquet")
    for name in ("p.jsonl", "p.parquet"):
        (line,) = _given(tmp_path / name, ignore_others=True)
        assert line.settings == {"guidance_scale": 3.0, "num_inference_steps": 7}


def test_what_the_manifest_says_of_a_column_comes_before_what_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("prompt,Steps,n\na,20,30\n")
    (line,) = _given(file, fields={"num_inference_steps": "n"}, columns=["Steps"])
    assert (line.settings, line.columns) == ({"num_inference_steps": 30}, {"Steps": "20"})
    (line,) = _given(file, fields={"num_inference_steps": "n"}, ignore_others=True)
    assert line.settings == {"num_inference_steps": 30}
    (said,) = _refused(file, fields={"num_inference_steps": "n"})
    assert said.startswith("1: Steps: no such key")


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_two_columns_of_one_field_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    row = {"prompt": "a", "Seed": 1, "seed": 2}
    if name == "p.csv":
        file.write_text("prompt,Seed,seed\na,1,2\n")
    elif name == "p.jsonl":
        file.write_text('{"prompt": "b", "seed": 3}\n{"prompt": "a", "Seed": 1, "seed": 2}\n')
    else:
        parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    (said,) = _refused(file)
    assert said.endswith("Seed and seed both mean seed: keep one, as by `ignore: [Seed]` in the manifest")
    assert _given(file, ignore=["Seed"])[-1].seeds == range(2, 3)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_a_files_sizes_can_be_declined_or_renamed(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "p.csv":
        file.write_text("prompt,width,height\na,250,251\n")
    elif name == "p.jsonl":
        file.write_text('{"prompt": "a", "width": 250, "height": 251}\n')
    else:
        parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "a", "width": 250, "height": 251}]), file)
    (line,) = _given(file, ignore=["width", "height"])
    assert (line.settings, line.columns) == ({}, {})
    (line,) = _given(file, columns={"photo_width": "width"}, ignore=["height"])
    assert line.settings == {}
    assert {name: int(value) for name, value in line.columns.items()} == {"photo_width": 250}
    assert "width = 250: must be a multiple of 8" in _refused(file)[0]


def test_a_column_may_be_a_field_and_be_kept(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,key\na,k1\n")
    (line,) = _given(tmp_path / "p.csv", fields={"id": "key"}, columns={"key": "key", "same": "key"})
    assert (line.id, line.columns) == ("k1", {"key": "k1", "same": "k1"})


def test_settings_that_nobody_named_are_told_with_how_to_decline_them(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("Prompt,width,CFG Scale,id,s\na,64,3,x,1\n")
    reading = Reading()
    _given(file, reading, fields={"seed": "s"})
    assert list(reading.told()) == [
        "width, guidance_scale (CFG Scale) from columns of prompt files: `ignore: [width, CFG Scale]` leaves "
        "them out"
    ]
    reading = Reading()
    _given(file, reading, fields={"seed": "s"}, ignore=["width", "CFG Scale"])
    assert list(reading.told()) == []


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_declined_column_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("prompt,width\na,64\n" if name == "p.csv" else '{"prompt": "a", "width": 64}\n')
    (said,) = _refused(file, ignore=["widht"])
    assert "widht: " in said
    assert "no such column" in said or "no row has such a column" in said


def test_all_columns_that_mean_nothing_are_told_in_one_message_that_can_be_pasted(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("Prompts,Class,my set\na crane,birds,1\n")
    (said,) = _refused(file)
    assert said.startswith(
        "1: Prompts, Class, my set: no such keys: did you mean prompt? Write prompts_from: "
    )
    keeping, leaving = _to_paste(said)
    assert keeping == {"file": "p.csv", "fields": {"prompt": "Prompts"}, "columns": ["Class", "my set"]}
    assert leaving == {"file": "p.csv", "fields": {"prompt": "Prompts"}, "ignore_others": True}
    (line,) = _given(file, **keeping | {"file": str(file)})
    assert (line.prompt, line.columns) == ("a crane", {"Class": "birds", "my set": "1"})
    assert [line.columns for line in _given(file, **leaving | {"file": str(file)})] == [{}]


def test_what_the_entry_says_already_is_in_what_can_be_pasted(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("t;n;split\na;1;x\n")
    (said,) = _refused(file, separator=";", fields={"prompt": "t"}, columns={"number": "n"})
    keeping, leaving = _to_paste(said)
    assert keeping == {
        "file": "p.csv", "separator": ";", "fields": {"prompt": "t"},
        "columns": {"number": "n", "split": "split"},
    }  # fmt: skip
    assert leaving == {
        "file": "p.csv", "separator": ";", "fields": {"prompt": "t"}, "columns": {"number": "n"},
        "ignore_others": True,
    }  # fmt: skip


def test_columns_that_only_some_rows_have_are_told_once_for_the_file(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"prompt": "a"}\n{"prompt": "b", "tag": "x"}\n{"prompt": "c", "width": 9}\nno json\n'
        '{"prompt": "d", "include": [], "tag": 1}\n'
    )
    unknown, width, broken = _refused(file)
    assert unknown.startswith("2: tag, include: no such keys: write prompts_from: ")
    assert _to_paste(unknown)[0] == {"file": "p.jsonl", "columns": ["tag", "include"]}
    assert width.startswith("3: width = 9: ")
    assert broken.startswith("4: not JSON")


def test_where_wrong_rows_are_left_out_each_row_tells_its_own_columns(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": "b", "tag": "x"}\n{"prompt": "c", "extra": 1, "tag": 1}\n')
    reading = Reading()
    assert [line.prompt for line in _given(file, reading, "skip")] == ["a"]
    assert [row.removeprefix(f"{file}:") for row in reading.skipped_rows] == [
        "2: tag: no such key: list it in `columns`, or set `ignore_others: true`",
        "3: extra, tag: no such keys: list them in `columns`, or set `ignore_others: true`",
    ]


def test_names_that_the_metadata_has_already_are_offered_under_others(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("prompt,file_name,index,x_file_name,q\na,1.jpg,0,2.jpg,7\n")
    (said,) = _refused(file, columns={"q": "file_name"})
    keeping, _ = _to_paste(said)
    assert keeping["columns"] == {
        "q": "file_name", "index_column": "index", "x_file_name_column": "x_file_name", "q_column": "q",
    }  # fmt: skip
    (line,) = _given(file, **keeping | {"file": str(file)})
    assert list(line.columns.values()) == ["1.jpg", "0", "2.jpg", "7"]


@pytest.mark.parametrize(
    ("header", "called"),
    [
        (",prompt", "a column without a name"),
        ("Unnamed: 0,prompt", "Unnamed: 0 (a column without a name)"),
        ("__index_level_0__,prompt", "__index_level_0__ (a column without a name)"),
    ],
)
def test_a_column_without_a_name_is_called_so_and_can_be_named_or_left_out(
    tmp_path: Path, header: str, called: str
) -> None:
    file = tmp_path / "p.csv"
    file.write_text(f"{header}\n0,a crane\n")
    (said,) = _refused(file)
    assert said.startswith(f"1: {called}: no such key")
    keeping, leaving = _to_paste(said)
    (line,) = _given(file, **keeping | {"file": str(file)})
    assert list(line.columns.values()) == ["0"]
    assert [line.columns for line in _given(file, **leaving | {"file": str(file)})] == [{}]
    name = header.removesuffix(",prompt")
    assert [line.columns for line in _given(file, ignore=[name])] == [{}]
    assert [line.id for line in _given(file, fields={"id": name})] == ["0"]


def test_a_file_of_very_many_unknown_columns_is_answered_in_a_few_lines(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("".join(f'{{"prompt": "a", "k{number}": 1}}\n' for number in range(5000)))
    (said,) = _refused(file)
    assert len(said) < 1000
    assert _to_paste(said) == [{"file": "p.jsonl", "ignore_others": True}]


def test_a_file_without_prompts_column_is_told_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("Prompts,beschreibung\na,b\n")
    (said,) = _refused(file, ignore_others=True)
    assert said == (
        "1: prompt: there is no such column: name it, as in fields: {prompt: COLUMN} (there are Prompts, "
        "beschreibung)"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"columns": {"width": "w"}}, "'width' is a name of imagemill's own metadata: choose another"),
        ({"columns": ["width"]}, "choose another, as in {width_column: width}"),
        ({"columns": [""]}, 'has no name: give it one, as in {row: ""}'),
        ({"columns": ["a", "a"]}, "holds a twice: remove one"),
        ({"columns": [7]}, "holds 7, and a name is text: write it in quotes"),
        ({"columns": {"a": 7}}, "must be text: write it in quotes"),
        ({"columns": "a"}, "must be a mapping"),
        ({"ignore": ["a", "a"]}, "holds a twice: remove one"),
        ({"ignore": ["a"], "columns": ["a"]}, "a is in `columns` too: remove one of them"),
        ({"ignore": ["a"], "fields": {"seed": "a"}}, "a is in `fields` too: remove one of them"),
        ({"empty_prompt": "skip"}, "must be unconditional"),
    ],
)  # fmt: skip
def test_an_entry_that_says_two_things_is_refused(source: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json({"name": "a", "model": "instant", "prompts_from": [{"file": "/p.csv", **source}]})
    assert said in str(caught.value)


def test_an_entry_is_kept_as_it_was_before_there_were_more_keys() -> None:
    def kept(**source: Any) -> dict[str, Any]:
        entry = {"file": "/p.csv", **source}
        manifest = Manifest.from_json({"name": "a", "model": "instant", "prompts_from": [entry]})
        assert Manifest.from_json(manifest.to_json()) == manifest
        (found,) = manifest.to_json()["prompts_from"]
        return dict(found)

    before = {"file": "/p.csv", "fields": {}, "columns": [], "ignore_others": False}
    assert kept() == before
    assert kept(columns=["a", "b"]) == before | {"columns": ["a", "b"]}
    assert kept(columns={"a": "a"}) == before | {"columns": ["a"]}
    assert kept(columns={"a": "b"}) == before | {"columns": {"a": "b"}}
    assert kept(ignore=["b"], empty_prompt="unconditional") == before | {
        "ignore": ["b"], "empty_prompt": "unconditional",
    }  # fmt: skip
