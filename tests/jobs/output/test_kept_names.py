"""The form of an output's shard names is kept in it, or told by the names that are there; never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.shard_names import FLAT, UNBOUNDED, ShardNames

NESTED = ShardNames(6)


def begun(folder: Path, names: ShardNames | None = None) -> Output:
    output = Output(folder)
    output.prepare()
    if names is not None:
        output.settle_names(names)
    return output


def put(output: Output, *names: str) -> None:
    for name in names:
        file = output.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_an_output_keeps_the_form_with_which_it_was_begun(tmp_path: Path) -> None:
    begun(tmp_path, NESTED)
    assert json.loads((tmp_path / ".imagemill/shards.json").read_text()) == {"digits": 6, "bounded": True}
    assert Output(tmp_path).names == NESTED


def test_the_form_stays_once_a_shard_is_there_and_may_change_before(tmp_path: Path) -> None:
    output = begun(tmp_path, NESTED)
    output.settle_names(FLAT)
    assert output.names == Output(tmp_path).names == FLAT
    put(output, "00000.tar")
    output.settle_names(NESTED)
    assert output.names == Output(tmp_path).names == FLAT


def test_an_output_without_shards_that_was_not_begun_has_no_form_yet(tmp_path: Path) -> None:
    reader, output = Output(tmp_path), begun(tmp_path)
    assert reader.names == UNBOUNDED
    output.settle_names(NESTED)
    assert reader.names == NESTED


@pytest.mark.parametrize("shard", ["00003.tar", "00003/metadata.jsonl", "123456.tar"])
def test_an_output_of_an_earlier_version_is_flat_and_goes_on_so(shard: str, tmp_path: Path) -> None:
    output = begun(tmp_path)
    put(output, shard, "2024/holidays/a.png", "149/notes.txt")
    assert Output(tmp_path).names == UNBOUNDED
    output.settle_names(NESTED)
    assert Output(tmp_path).names == UNBOUNDED
    assert Output(tmp_path).shards() == [123_456 if shard == "123456.tar" else 3]


@pytest.mark.parametrize(
    ("shard", "names"), [("149/421.tar", NESTED), ("0149/421/metadata.jsonl", ShardNames(7))]
)
def test_a_copy_without_hidden_files_tells_its_form_by_its_shards(
    shard: str, names: ShardNames, tmp_path: Path
) -> None:
    put(Output(tmp_path), shard, "README.md")
    assert (Output(tmp_path).names, Output(tmp_path).shards()) == (names, [149_421])


@pytest.mark.parametrize("other", ["00003.tar", "0149/421.tar"])
def test_names_of_two_forms_are_refused_where_nothing_says_which_is_meant(other: str, tmp_path: Path) -> None:
    put(Output(tmp_path), "149/421.tar", other)
    with pytest.raises(OutputError, match=r"holds .*149/421.tar.*, names of two forms"):
        Output(tmp_path).shards()
    (tmp_path / ".imagemill").mkdir()
    (tmp_path / ".imagemill/shards.json").write_text('{"digits": 6}')
    assert Output(tmp_path).shards() == [149_421]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"digits": 4}', '{"digits": "6"}', '{"digits": true}'])
def test_a_form_that_imagemill_did_not_write_is_refused(text: str, tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / ".imagemill/shards.json").write_text(text)
    with pytest.raises(OutputError, match=r"shards.json: not what imagemill wrote"):
        Output(tmp_path).shards()
