"""The files that a source means, in order and with their ids; other files are refused with what to do."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jobs.errors import ManifestError
from producer.manifest.manifest import Manifest, load_manifest
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_files import files_of, id_of, source_trouble
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines


def _folder(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the text of {name}\n")
    return folder


def _ids(file: Path | str) -> list[str]:
    source = PromptSource(file=str(file), one_per_file=True)
    assert source_trouble(source) is None
    return [id_of(source, file) for file in files_of(source)]


def test_a_folder_of_prompts_comes_in_the_order_of_the_numbers_in_its_names(tmp_path: Path) -> None:
    names = [f"{number}.txt" for number in (0, 1, 2, 10, 100)]
    folder = _folder(
        tmp_path / "dpg [1]", *reversed(names), "0.png", "notes.md", ".hidden.txt", ".cache/9.txt"
    )
    assert _ids(folder) == ["0", "1", "2", "10", "100"]
    _folder(folder, "01.txt", "b2.TXT", "b10.txt", "a", "c.caption", "x.y.txt")
    assert _ids(folder) == ["0", "01", "1", "2", "10", "100", "b2", "b10", "c", "x.y"]


def test_the_files_of_subfolders_carry_their_names(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "all", "0.txt", "a/0.txt", "a/2.txt", "a/10.txt", "b/c/0.txt")
    assert _ids(folder) == ["0", "a/0", "a/2", "a/10", "b/c/0"]
    assert _ids(f"{folder}/*.txt") == ["0"]
    assert _ids(f"{folder}/a/*.txt") == ["0", "2", "10"]
    assert _ids(f"{folder}/*/0.txt") == ["a/0"]
    assert _ids(f"{folder}/**/0.txt") == ["0", "a/0", "b/c/0"]
    assert _ids(f"{folder}/a/10.txt") == ["10"]


def test_a_prompt_a_file_is_read_from_the_manifest_with_its_id(tmp_path: Path) -> None:
    _folder(tmp_path / "prompts", "2.txt", "10.txt", "1.txt")
    (tmp_path / "prompts" / "2.txt").write_text("A fern in a pot.\nIt stands on a sill.\n")
    manifest = tmp_path / "m.yaml"
    for file in ("prompts", "prompts/*.txt"):
        manifest.write_text(
            f"name: cats\nmodel: instant\nprompts_from: {{file: {file}, one_per_file: true}}\n"
        )
        loaded = load_manifest(manifest)
        assert [(line.id, line.prompt) for line in lines(loaded)] == [
            ("1", "the text of 1.txt"),
            ("2", "A fern in a pot.\nIt stands on a sill."),
            ("10", "the text of 10.txt"),
        ]
        assert Manifest.from_json(loaded.to_json()) == loaded


def test_two_files_with_one_id_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "all", "1.txt", "1.TXT")
    trouble = source_trouble(PromptSource(file=str(folder), one_per_file=True))
    assert trouble == "1.TXT and 1.txt have one id, 1: rename one"


@pytest.mark.parametrize(
    ("name", "keys", "what"),
    [
        ("p.xlsx", {}, "p.xlsx is .xlsx, which is not read: save the sheet as .csv (UTF-8)"),
        ("p.YML", {}, "p.YML is .yml, which is not read: write its prompts under `prompts`"),
        ("p.toml", {}, "p.toml is .toml, which is not read: convert it to .json"),
        ("p.jsonl.bz2", {}, "p.jsonl.bz2 is .bz2, which is not read: unpack it, or pack it as .gz or .zst"),
        ("p.parquet.gz", {}, "p.parquet.gz is packed twice: unpack it, .parquet is packed in itself"),
        ("p.xlsx.zst", {}, "p.xlsx.zst holds .xlsx, which is not read: unpack it, and save the sheet as"),
        ("prompts.gz", {}, "prompts.gz does not say what it holds: rename it, as to prompts.jsonl.gz"),
        ("p.tar.gz", {}, "p.tar.gz holds .tar, which is not read: unpack it"),
        ("p", {}, "p ends in none of .jsonl, .json, .csv, .tsv, .txt, .parquet: rename or convert it"),
        (
            "p.txt",
            {"fields": {"prompt": "a"}},
            "p.txt has no columns: remove `fields`, `columns` and `ignore`",
        ),
        ("p.txt", {"separator": ";"}, "p.txt is no table: remove `separator`, or rename the file to .csv if"),
        ("p.jsonl", {"quoting": "none"}, "p.jsonl is no table: remove `quoting`, or rename"),
        ("p.parquet", {"encoding": "utf-16"}, "p.parquet is not text: remove `encoding`"),
        ("p.csv", {"one_per_file": True}, "p.csv is not .txt: remove `one_per_file`, or name .txt files"),
    ],
)
def test_a_file_that_is_not_read_so_is_refused_with_what_to_do(
    tmp_path: Path, name: str, keys: dict[str, Any], what: str
) -> None:
    (tmp_path / name).write_text("a\n")
    trouble = source_trouble(PromptSource(file=str(tmp_path / name), **keys))
    assert trouble is not None
    assert trouble.startswith(what)


def test_a_folder_offers_a_pattern_and_one_prompt_a_file(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "dpg", "0.txt")
    assert source_trouble(PromptSource(file="texts/dpg").with_file(str(folder))) == (
        f"is a folder: write {folder}/*.jsonl for the files in it, or, if each of its .txt files is one "
        "prompt, add `one_per_file: true`, as in prompts_from: {file: texts/dpg, one_per_file: true}"
    )
    (folder / "0.txt").unlink()
    trouble = source_trouble(PromptSource(file=str(folder), one_per_file=True))
    assert trouble == "holds no .txt file: put one there for each prompt, or name another folder"


@pytest.mark.parametrize(
    "name", ["P.TXT", "p.Csv", "p.TSV", "p.tab", "p.JSONL", "p.ndjson", "p.jsonlines", "p.JSON", "p.caption"]
)
@pytest.mark.parametrize("packed", ["", ".gz", ".ZST"])
def test_upper_case_other_names_and_packed_files_are_read_alone_and_by_pattern(
    tmp_path: Path, name: str, packed: str
) -> None:
    text = {"json": b'{"prompt": "a fox"}\n', "csv": b"prompt\na fox\n", "tsv": b"prompt\na fox\n"}
    kind = name.lower().partition(".")[2]
    form = "json" if "json" in kind else {"tab": "tsv"}.get(kind, kind)
    contents = text.get(form, b"a fox\n")
    pack = {"": bytes, ".gz": gzip.compress, ".ZST": zstandard.compress}[packed]
    (tmp_path / f"{name}{packed}").write_bytes(pack(contents))
    for file in (f"{name}{packed}", "*"):
        found = {"name": "cats", "model": "instant", "prompts_from": [f"{tmp_path}/{file}"]}
        assert [line.prompt for line in lines(Manifest.from_json(found))] == ["a fox"]


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ('separator: ";;"', 'separator = ";;": must be one character, as ";" or "\\t"'),
        ("separator: '\"'", 'separator = "\\"": must be one character'),
        ("encoding: klingon", "encoding = klingon: no such encoding: use one that Python knows"),
        ("encoding: hex", "encoding = hex: no such encoding"),
        ("quoting: all", "quoting = all: must be minimal or none"),
        ("one_per_file: 1", "one_per_file = 1: "),
    ],
)
def test_a_wrong_key_of_a_source_is_reported_at_its_place(tmp_path: Path, keys: str, what: str) -> None:
    (tmp_path / "p.csv").write_text("prompt\na\n")
    (tmp_path / "m.yaml").write_text(f"name: cats\nmodel: instant\nprompts_from: {{file: p.csv, {keys}}}\n")
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "m.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/m.yaml:3:")
    assert f"prompts_from.{what}" in str(caught.value)


def test_a_manifest_that_leaves_the_newer_keys_alone_is_kept_as_before(tmp_path: Path) -> None:
    source = PromptSource(file="p.csv")
    assert set(source.model_dump(mode="json")) <= {"file", "fields", "columns", "ignore_others"}
    given = PromptSource(file="p.csv", quoting="none", separator=";", encoding="cp1252")
    dumped = given.model_dump(mode="json")
    assert (dumped["quoting"], dumped["separator"], dumped["encoding"]) == ("none", ";", "cp1252")
    assert PromptSource.model_validate(dumped) == given


def test_files_that_may_each_be_one_prompt_are_told(tmp_path: Path) -> None:
    _folder(tmp_path / "prompts", "1.txt", "2.txt", "10.txt")
    (tmp_path / "prompts" / "2.txt").write_text("A fern in a pot.\nIt stands on a sill.\n")

    def told(*sources: PromptSource) -> tuple[int, list[str]]:
        found = [source.model_dump(mode="json") for source in sources]
        manifest = Manifest.from_json({"name": "cats", "model": "instant", "prompts_from": found})
        reading = Reading()
        return len(list(lines(manifest, reading))), list(reading.told())

    pattern = str(tmp_path / "prompts" / "*.txt")
    assert told(PromptSource(file=pattern)) == (
        4,
        [
            "2 of 3 .txt files have one line: if each file is one prompt, `one_per_file: true` reads it "
            "whole, with the file's name as its id"
        ],
    )
    assert told(PromptSource(file=pattern, one_per_file=True)) == (3, [])
    assert told(PromptSource(file=str(tmp_path / "prompts" / "1.txt"))) == (1, [])
