"""One order in every process, and a line of metadata for every line of a manifest."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from jobs.entry import Entry
from jobs.errors import LeaseLost
from jobs.failpoints import Failpoint, arm
from jobs.output.equal_lines import NotedLine
from jobs.output.job_files import JobFiles
from jobs.output.line_order import as_kept, write_order
from jobs.output.lines import line_key
from jobs.output.output import Output
from jobs.output.store import Stage
from jobs.output.stored_shard import LayoutName
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.export.export import write_export
from producer.export.options import Options
from tests.waiting import LONGEST
from worker.engine.renderer import RenderedBy
from worker.finish import add_lines
from worker.finish.add_lines import LinesOf
from worker.finish.finish import JobReport, finish_output
from worker.shard.store import ShardStore

MADE_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
LAYOUTS: list[LayoutName] = ["files", "webdataset"]

LOAD = """
import json, sys
import datasets
datasets.disable_progress_bars()
for number, given in enumerate(json.loads(sys.argv[1])):
    found = datasets.load_dataset(*given[0], **given[1], split="train", cache_dir=f"{sys.argv[2]}/{number}")
    records = [line["json"] if "json" in line else line for line in found]
    print(json.dumps([[line["index"], line["seed"], line["id"]] for line in records]))
"""


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "foxes")
    output.prepare()
    return output


def line(seed: int, id: str | None = None, **columns: Any) -> Entry:
    request = ImageRequest(prompt="a fox", seed=seed, model="shapes", revision="v1", height=8, width=8)
    return Entry.of(request, id=id, columns=columns)


def put(
    output: Output, shard: int, lines: Sequence[Entry], places: Sequence[int], *, job: int = 1,
    layout: LayoutName = "files",
) -> None:  # fmt: skip
    names = sorted({name for one in lines for name in one.columns})
    store = ShardStore(
        output, shard, "1", lines, job_id=f"foxes-{job}", column_names=names, adopt_below=0, layout=layout,
        places=places,
    )  # fmt: skip
    for position, one in enumerate(lines):
        store.save(position, np.full((8, 8, 3), one.request.seed, np.uint8), MADE_BY)
    assert store.commit([])


def finish(
    output: Output, job: int = 1, lines: LinesOf | None = None, check: Callable[[], None] | None = None
) -> None:
    report = JobReport(
        job_id=f"foxes-{job}", manifest={}, outcome="complete", images=1, done=1, failed=0, submitted_at="",
        started_at=None, finished_at="", workers=[],
    )  # fmt: skip
    finish_output(output, report, lines=lines, preview=False, **({} if check is None else {"check": check}))


def note(output: Output, lines: Sequence[tuple[int, Entry]], job: int = 1) -> None:
    noted = [NotedLine(one.request.image_id, place, one.id, one.columns) for place, one in lines]
    text = "".join(f"{one.to_json()}\n" for one in noted)
    (output.path / JobFiles(output, f"foxes-{job}").equal_lines).write_text(text)


def keep_order(output: Output, lines: Sequence[Entry], job: int) -> None:
    keys = [line_key(one.request.image_id, one.id, one.columns) for one in lines]
    write_order(output, f"foxes-{job}", BytesIO(as_kept(array("Q", keys))))


def table(output: Output) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(output.path / "records.parquet").to_pylist()
    return found


def seeds(output: Output) -> list[int]:
    assert [one["index"] for one in table(output)] == list(range(len(table(output))))
    return [one["seed"] for one in table(output)]


def records(output: Output) -> list[dict[str, Any]]:
    return [record for shard in output.shards() for record in output.records(shard)]


def test_six_processes_load_thirteen_shards_in_one_order_topped_up_and_exported_too(tmp_path: Path) -> None:
    loads: list[tuple[list[str], dict[str, str]]] = []
    for layout in LAYOUTS:
        output = Output(tmp_path / layout)
        output.prepare()
        for shard in range(11):
            put(
                output,
                shard,
                [line(2 * shard), line(2 * shard + 1)],
                [2 * shard, 2 * shard + 1],
                layout=layout,
            )
        finish(output)
        # A top-up asks for four more after those that are there.
        for shard in (11, 12):
            put(
                output,
                shard,
                [line(2 * shard), line(2 * shard + 1)],
                [2 * shard, 2 * shard + 1],
                job=2,
                layout=layout,
            )
        keep_order(output, [line(seed) for seed in range(26)], job=2)
        finish(output, job=2)
        loads.append(([str(output.path)], {}))
    for to, of in ((LAYOUTS), (LAYOUTS[::-1])):
        write_export(tmp_path / of, tmp_path / f"{of}-{to}", to, Settings(), options=Options(shard_size=2))
        loads.append(([str(tmp_path / f"{of}-{to}")], {}))
    write_export(tmp_path / "files", tmp_path / "foxes.parquet", "parquet", Settings())
    loads.append((["parquet"], {"data_files": str(tmp_path / "foxes.parquet")}))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, json.dumps(loads), tmp_path / f"cache-{seed}"],
            env={
                **os.environ, "PYTHONHASHSEED": str(seed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
                "HF_HOME": str(tmp_path / "hf"),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(6)
    ]  # fmt: skip
    for process in processes:
        out, _ = process.communicate(timeout=LONGEST)
        assert [json.loads(text) for text in out.splitlines()] == [[[i, i, None] for i in range(26)]] * 5


def test_lines_of_several_sizes_stand_in_the_order_of_the_manifest(output: Output) -> None:
    put(output, 0, [line(0), line(2), line(4)], [0, 2, 4])
    put(output, 1, [line(1), line(3)], [1, 3])
    finish(output)
    assert seeds(output) == [0, 1, 2, 3, 4]
    assert [one["file_name"] for one in table(output)][:2] == ["00000/000000000.png", "00001/000010000.png"]
    assert [record["index"] for record in records(output)] == [0, 2, 4, 1, 3]


def test_the_newest_manifest_gives_the_order_and_what_it_does_not_ask_for_comes_last(output: Output) -> None:
    put(output, 0, [line(0), line(1), line(2)], [0, 1, 2])
    finish(output)
    put(output, 1, [line(9)], [1], job=2)
    keep_order(output, [line(2), line(9), line(0)], job=2)
    finish(output, job=2)
    assert seeds(output) == [2, 9, 0, 1]


def test_an_output_of_before_keeps_the_order_of_its_shards_and_a_users_own_index(output: Output) -> None:
    put(output, 0, [line(5, index="fifth"), line(3, index="third")], [7, 8])
    file = output.metadata_file(0)
    former = [{**json.loads(text)} for text in file.read_text().splitlines()]
    for record in former:
        # As it was written before records had an index of ours: the user's column after the settings.
        value = {5: "fifth", 3: "third"}[record["seed"]]
        record["index"] = value
        record["index"] = record.pop("index")
    file.write_text("".join(json.dumps(record) + "\n" for record in former))
    put(output, 1, [line(4)], [0], job=2)
    finish(output, job=2)
    assert seeds(output) == [4, 5, 3]
    assert [one["column_index"] for one in table(output)] == [None, "fifth", "third"]


def test_without_pyarrow_the_table_is_lines_of_json(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    put(output, 0, [line(1, note={"a": 1}), line(0)], [1, 0])
    finish(output)
    assert (output.path / "records.parquet").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finish(output)
    assert not (output.path / "records.parquet").exists()
    found = [json.loads(text) for text in (output.path / "records.jsonl").read_text().splitlines()]
    assert [(one["index"], one["seed"], one["note"]) for one in found] == [(0, 0, None), (1, 1, {"a": 1})]
    assert "- records.jsonl" in (output.path / "README.md").read_text()


def test_a_number_that_no_column_holds_unchanged_makes_the_column_text(output: Output) -> None:
    put(output, 0, [line(0, n=0.5), line(1, n=2**53 + 1)], [0, 1])
    finish(output)
    assert [one["n"] for one in table(output)] == ["0.5", "9007199254740993"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_line_of_one_picture_stands_in_the_metadata_and_a_second_finishing_adds_none(
    output: Output, layout: LayoutName
) -> None:
    job = LinesOf("foxes-1", layout, 2, ["note"])
    put(output, 0, [line(0, "a", note="x"), line(1, "b", note="y")], [0, 2], layout=layout)
    # Two of them are there already, one has no picture: it failed.
    twins = [(1, line(0, "c")), (3, line(1)), (4, line(0, "d", note="x")), (5, line(0, "a", note="x"))]
    note(output, [*twins, (6, line(1, "b", note="y")), (7, line(8, "e"))])
    finish(output, lines=job)
    finish(output, lines=job)
    found = records(output)
    assert [(one["index"], one["seed"], one["id"], one["note"]) for one in found] == [
        (0, 0, "a", "x"), (2, 1, "b", "y"), (1, 0, "c", None), (3, 1, None, None), (4, 0, "d", "x"),
    ]  # fmt: skip
    assert {one["job_id"] for one in found} == {"foxes-1"}
    names = [one["file_name"] for one in found]
    assert names == ["000000000.png", "000000001.png", "000010000.png", "000010001.png", "000020000.png"]
    for shard in output.shards():
        wanted = {one["file_name"]: one["seed"] for one in output.records(shard)}
        held = dict(output.pictures(shard, wanted.keys()))
        assert held.keys() == wanted.keys()
    assert "5 lines with 2 different pictures" in (output.path / "README.md").read_text()
    if layout == "files":
        assert [one["id"] for one in table(output)] == ["a", "c", "b", None, "d"]
        first, second = output.path / "00000/000000000.png", output.path / "00001/000010000.png"
        assert first.samefile(second)
    else:
        assert (output.path / "00001.parquet").exists()


def test_no_line_is_added_once_a_newer_job_has_begun(output: Output) -> None:
    put(output, 0, [line(0, "a")], [0])
    note(output, [(1, line(0, "b"))])

    def begun() -> None:
        if (output.spool / "finish/1/lines-1").exists():
            output.close_attempts()

    with pytest.raises(LeaseLost):
        finish(output, lines=LinesOf("foxes-1", "files", 2, []), check=begun)
    assert output.shards() == [0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("when", ["before the lines are read", "before the commit"])
def test_lines_that_a_late_attempt_adds_meanwhile_are_added_once(
    output: Output, layout: LayoutName, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = LinesOf("foxes-1", layout, 2, [])
    put(output, 0, [line(0, "a")], [0], layout=layout)
    note(output, [(1, line(0, "b"))])
    read, late = add_lines.noted_lines, [True]

    def other() -> None:
        if late:
            late.clear()
            stage = Stage(output.spool / "finish/late", "finish/late", lambda: None)
            stage.folder.mkdir()
            add_lines.add_lines(output, job, stage)

    def reading(*of: Any) -> Iterator[NotedLine]:
        if when == "before the lines are read":
            other()
        return read(*of)

    def committing() -> None:
        if when == "before the commit" and (output.spool / "finish/1/lines-1").exists():
            other()

    monkeypatch.setattr(add_lines, "noted_lines", reading)
    finish(output, lines=job, check=committing)
    assert late == []
    assert [(one["seed"], one["id"]) for one in records(output)] == [(0, "a"), (0, "b")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_disk_that_is_full_while_lines_are_added_only_makes_the_finishing_wait(
    output: Output, layout: LayoutName
) -> None:
    put(output, 0, [line(0, "a")], [0], layout=layout)
    note(output, [(1, line(0, "b"))])
    full = [OSError(errno.ENOSPC, "No space left on device")]

    def hook(name: Failpoint, _path: Path | None) -> None:
        if name == "before commit" and full:
            raise full.pop()

    before = arm(hook)
    try:
        with pytest.raises(OSError, match="No space left"):
            finish(output, lines=LinesOf("foxes-1", layout, 2, []))
        finish(output, lines=LinesOf("foxes-1", layout, 2, []))
    finally:
        arm(before)
    assert [one["id"] for one in records(output)] == ["a", "b"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_loaded_before_a_top_up_is_not_loaded_again_in_its_place(
    output: Output, tmp_path: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()

    def loaded() -> list[int]:
        found = datasets.load_dataset(str(output.path), split="train", cache_dir=str(tmp_path / "cache"))
        return [one.get("json", one)["seed"] for one in found]

    put(output, 0, [line(1), line(2)], [0, 1], layout=layout)
    finish(output)
    assert loaded() == [1, 2]
    put(output, 1, [line(3)], [2], job=2, layout=layout)
    keep_order(output, [line(1), line(2), line(3)], job=2)
    finish(output, job=2)
    assert loaded() == [1, 2, 3]
    if layout == "files":
        keep_order(output, [line(3), line(1), line(2)], job=3)
        finish(output, job=3)
        assert loaded() == [3, 1, 2]
