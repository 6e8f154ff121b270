"""Values of rows as programs write them: ids, whole decimals, numbers of samplers, dates, and no prompt."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from jobs.errors import ManifestError
from jobs.models.models import resolve_model
from producer.manifest.line import Line
from producer.manifest.manifest import Manifest
from producer.manifest.pipeline_check import PipelineCheck
from producer.prompt_files.reading import Reading
from producer.prompt_files.sources import lines


def _given(file: Path, /, reading: Reading | None = None, **source: Any) -> list[Line]:
    entry = {"file": str(file)} | source
    manifest = Manifest.from_json({"name": "a", "model": "instant", "prompts_from": [entry]})
    return list(lines(manifest, reading, PipelineCheck.of(manifest, resolve_model("instant", None))))


def _refused(file: Path, /, **source: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        _given(file, **source)
    return [one.removeprefix(f"{file}:") for one in str(caught.value).split("\n")]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_a_whole_number_is_an_id(tmp_path: Path, name: str) -> None:
    def write(*ids: object) -> None:
        rows = [json.dumps({"prompt": "a", "id": id}) for id in ids]
        file.write_text("\n".join(rows) if name == "p.jsonl" else f"[{','.join(rows)}]")

    file = tmp_path / name
    write(12, -1, 10**30, "x")
    assert [line.id for line in _given(file)] == ["12", "-1", str(10**30), "x"]
    write(1.0, True, [1])
    found = _refused(file)
    assert len(found) == 3
    assert all(" must be text" in said for said in found)


def test_a_whole_number_with_a_point_is_whole_in_a_table(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(
        f"prompt,seed,width,num_inference_steps\na,1.0,64.,7.000\nb,{2**53 - 1}.0,,\nc,{2**60},,\n"
    )
    first, second, third = _given(file)
    assert (first.seeds, first.settings) == (range(1, 2), {"width": 64, "num_inference_steps": 7})
    assert second.seeds == range(2**53 - 1, 2**53)
    assert third.seeds == range(2**60, 2**60 + 1)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1.5", "must be a whole number, without a point"),
        ("1e3", "must be a whole number, without a point"),
        (".0", "must be a whole number, without a point"),
        (f"{2**53}.0", "may have been another number: from 2**53 on a decimal number is not exact: write it"),
    ],
)
def test_no_number_is_rounded(tmp_path: Path, cell: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(f"prompt,seed\na,{cell}\n")
    (found,) = _refused(tmp_path / "p.csv")
    assert found.startswith(f"2: seed = {cell}: {said}")


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_the_seed_minus_one_is_derived_even_if_the_manifest_has_a_seed(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "p.csv":
        file.write_text("prompt,seed\na,-1\nb,-1.0\n")
    elif name == "p.jsonl":
        file.write_text('{"prompt": "a", "seed": -1}\n')
    else:
        parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "seed": [-1.0, None]}), file)
    entry = {"file": str(file)}
    manifest = {"name": "a", "model": "instant", "settings": {"seed": 7}, "prompts_from": [entry]}
    found = [line.seeds for line in lines(Manifest.from_json(manifest))]
    assert found[0] is None
    assert found == {"p.csv": [None, None], "p.jsonl": [None], "p.parquet": [None, range(7, 8)]}[name]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.parquet"])
def test_diffusiondbs_numbers_of_samplers_are_read_and_unknown_ones_told(tmp_path: Path, name: str) -> None:
    def write(codes: list[int]) -> None:
        if name == "p.csv":
            file.write_text("prompt,sampler\n" + "".join(f"a,{code}\n" for code in codes))
        elif name == "p.jsonl":
            file.write_text("".join(f'{{"prompt": "a", "sampler": {code}}}\n' for code in codes))
        else:
            column = pyarrow.array(codes, pyarrow.uint8())
            parquet.write_table(pyarrow.table({"prompt": ["a"] * len(codes), "sampler": column}), file)

    file = tmp_path / name
    write([*range(1, 9)])
    assert [line.settings["scheduler"] for line in _given(file)] == [
        "DDIM", "PNDM", "Euler", "Euler a", "Heun", "DPM2", "DPM2 a", "LMS",
    ]  # fmt: skip
    write([8, 9])
    (said,) = _refused(file)
    line = 3 if name == "p.csv" else 2
    assert said.startswith(
        f"{line}: sampler = 9: is no sampler's number in DiffusionDB: use one of 1 (DDIM), "
    )


def test_a_number_in_a_column_of_another_name_is_no_sampler(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,scheduler\na,8\n")
    (said,) = _refused(tmp_path / "p.csv")
    assert said.startswith("2: scheduler = \"8\": no scheduler is called '8'")


def test_a_guidance_of_nothing_is_off_and_told(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("prompt,cfg\na,0\nb,1.0\nc,7\nd,\ne,0.0\n")
    reading = Reading()
    found = [line.settings.get("guidance_scale") for line in _given(file, reading, ignore=[])]
    assert found == [1.0, 1.0, 7.0, None, 1.0]
    assert list(reading.told())[1:] == [
        "3 rows with a guidance_scale of 0 or 1: guidance is off there, and 0 counts as 1"
    ]
    file.write_text("prompt,cfg\na,0.5\n")
    assert _refused(file) == ["2: cfg = 0.5: must be at least 1"]


def test_dates_times_and_decimals_are_kept_as_text(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    at = datetime(2024, 2, 3, 4, 5, 6, 789000)
    berlin = timezone(timedelta(hours=1))
    table = {
        "prompt": ["a", "b"],
        "us": pyarrow.array([at, None], pyarrow.timestamp("us")),
        "s": pyarrow.array([at.replace(microsecond=0), None], pyarrow.timestamp("s")),
        "ns": pyarrow.array([at, None], pyarrow.timestamp("ns")),
        "utc": pyarrow.array([at.replace(tzinfo=UTC), None], pyarrow.timestamp("ms", "UTC")),
        "zone": pyarrow.array([at.replace(tzinfo=berlin), None], pyarrow.timestamp("us", "+01:00")),
        "day": pyarrow.array([date(2024, 2, 3), None], pyarrow.date32()),
        "time": pyarrow.array([time(4, 5), None], pyarrow.time64("ns")),
        "price": pyarrow.array([Decimal("1.50"), None], pyarrow.decimal128(12, 2)),
        "tiny": pyarrow.array([Decimal("0.0000000001"), None], pyarrow.decimal128(12, 10)),
        "inside": pyarrow.array(
            [{"at": [at]}, None], pyarrow.struct([("at", pyarrow.list_(pyarrow.timestamp("ns")))])
        ),
    }
    parquet.write_table(pyarrow.table(table), file)
    first, second = _given(file, columns=[name for name in table if name != "prompt"])
    assert first.columns == {
        "us": "2024-02-03T04:05:06.789000", "s": "2024-02-03T04:05:06", "ns": "2024-02-03T04:05:06.789000",
        "utc": "2024-02-03T04:05:06.789000+00:00", "zone": "2024-02-03T04:05:06.789000+01:00",
        "day": "2024-02-03", "time": "04:05:00", "price": "1.50", "tiny": "0.0000000001",
        "inside": {"at": ["2024-02-03T04:05:06.789000"]},
    }  # fmt: skip
    assert second.columns == {}
    assert [line.id for line in _given(file, fields={"id": "day"}, ignore_others=True)] == [
        "2024-02-03",
        None,
    ]


def test_a_time_that_would_be_cut_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    column = pyarrow.array([1_700_000_000_000_000_001], pyarrow.timestamp("ns"))
    parquet.write_table(pyarrow.table({"prompt": ["a"], "at": column}), file)
    (said,) = _refused(file, columns=["at"])
    assert "would lose data" in said
    assert [line.prompt for line in _given(file, ignore=["at"])] == ["a"]


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [("binary", b"x", "bytes"), ("duration[s]", timedelta(seconds=1), "durations")],
)
def test_a_column_that_no_text_stands_for_is_refused_before_its_rows(
    tmp_path: Path, kind: str, value: object, held: str
) -> None:
    file = tmp_path / "p.parquet"
    column = pyarrow.array([value], pyarrow.type_for_alias(kind))
    parquet.write_table(pyarrow.table({"prompt": ["a"], "x": column}), file)
    assert _refused(file, columns=["x"]) == [
        f" x: holds {held}: cast it to text, or leave it out of `columns`"
    ]
    assert [line.columns for line in _given(file, ignore_others=True)] == [{}]


EMPTY = ["", " ", "\t\u3000"]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json", "p.parquet"])
def test_an_empty_prompt_is_a_mistake_at_its_line_unless_it_is_asked_for(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    prompts: list[str | None] = [*EMPTY, "a"] if name == "p.csv" else [*EMPTY, None, "a"]
    if name == "p.csv":
        file.write_text("prompt,id\n" + "".join(f'"{prompt}",x\n' for prompt in prompts))
    elif name == "p.parquet":
        parquet.write_table(pyarrow.table({"prompt": prompts}), file)
    else:
        rows = [json.dumps({"prompt": prompt}) for prompt in prompts]
        file.write_text("\n".join(rows) if name == "p.jsonl" else f"[{','.join(rows)}]")
    said = _refused(file)
    assert len(said) == len(prompts) - 1
    first = {"p.csv": "2", "p.json": "1[0]"}.get(name, "1")
    assert said[0] == (
        f"{first}: prompt: is empty: write a prompt, or, for pictures of none, add `empty_prompt: "
        f"unconditional`, as in prompts_from: {{file: {file}, empty_prompt: unconditional}}"
    )
    found = [line.prompt for line in _given(file, empty_prompt="unconditional")]
    assert found == [prompt if prompt is not None else "" for prompt in prompts]


def test_a_row_without_a_prompt_is_wrong_even_where_empty_ones_are_taken(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "x"}\n')
    assert _refused(tmp_path / "p.jsonl", empty_prompt="unconditional") == ["1: prompt: is missing: add it"]


def test_flags_without_a_prompt_are_a_mistake_unless_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text('--n blurry\n\n--prompt "" --steps 3\na fox\n')
    said = _refused(file)
    assert [one.partition(" is empty")[0] for one in said] == ["1: prompt:", "3: --prompt:"]
    found = _given(file, empty_prompt="unconditional")
    assert [line.prompt for line in found] == ["", "", "a fox"], "a blank line is none"


def test_an_empty_file_is_a_prompt_only_where_empty_ones_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "1.txt").write_text("a fox\n")
    (folder / "2.txt").write_text(" \n")
    (said,) = _refused(folder, one_per_file=True)
    assert said.endswith("2.txt: holds no prompt: write one into it, or take it out of `prompts_from`")
    found = _given(folder, one_per_file=True, empty_prompt="unconditional")
    assert [(line.prompt, line.id) for line in found] == [("a fox", "1"), ("", "2")]
