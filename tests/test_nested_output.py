"""An output of shards in folders of a thousand: written, examined, mended, exported and read as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from webdataset import WebDataset

from jobs.errors import OutputError
from jobs.models.models import BUILT_IN
from jobs.output.job_files import JobFiles
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.shard_names import ShardNames
from jobs.output.stored_shard import LayoutName
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.doctor.doctor import diagnose
from producer.export.export import write_export
from producer.export.options import Options
from producer.manifest.manifest import Manifest
from producer.manifest.submitted import SubmittedManifest
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare
from producer.verify.sample import SampleCounts, draw
from tests.expanded import expand
from tests.rendered_output import RENDERED_BY
from tests.stand_ins import drawn
from worker.finish.finish import JobReport, finish_output
from worker.shard.store import ShardStore

NUMBERS = (0, 1, 998, 999, 1000, 1001)
"""Two pictures each; a cancelled job may leave numbers out."""


@pytest.fixture(params=["files", "webdataset"])
def layout(request: pytest.FixtureRequest) -> LayoutName:
    found: LayoutName = request.param
    return found


@pytest.fixture
def output(tmp_path: Path, layout: LayoutName) -> Output:
    """As workers leave it: the first place of shard 999 failed."""
    return rendered(Output(tmp_path / "out"), layout, tmp_path)


def rendered(output: Output, layout: LayoutName, folder: Path) -> Output:
    """An output of NUMBERS, as workers leave it; its manifest is in the folder."""
    output.prepare()
    output.settle_names(ShardNames(6))
    given = {
        "name": "foxes", "model": "instant", "revision": "instant-1", "output": output.label,
        "layout": layout, "shard_size": 2, "settings": {"height": 8, "width": 8, "num_inference_steps": 1},
        "prompts": [f"fox {n}" for n in range(2 * len(NUMBERS))],
    }  # fmt: skip
    manifest = Manifest.from_json(given)
    (folder / "foxes.yaml").write_text(json.dumps({**given, "revision": None}))
    JobFiles(output, "foxes-1").write_manifest(SubmittedManifest(manifest).to_json())
    entries = list(expand(manifest, BUILT_IN["instant"]))
    for turn, shard in enumerate(NUMBERS):
        here = entries[turn * 2 : turn * 2 + 2]
        store = ShardStore(
            output, shard, "1-a", here, job_id="foxes-1", column_names=(), adopt_below=0, layout=layout,
            places=[turn * 2, turn * 2 + 1],
        )  # fmt: skip
        failures = [
            Failure(shard=shard, position=0, entry=here[0], reason="black", job_id="foxes-1", command="again")
        ] * (shard == 999)
        for position in range(len(failures), 2):
            store.save(position, drawn(here[position].request), RENDERED_BY)
        assert store.commit(failures)
    finish_output(output, report_of(output))
    return output


def report_of(output: Output) -> JobReport:
    return JobReport(
        job_id="foxes-1", manifest=output.read_json(JobFiles(output, "foxes-1").manifest), outcome="failures",
        images=12, done=11, failed=1, submitted_at="2026-01-31T12:00:00Z", started_at=None,
        finished_at="2026-01-31T12:00:00Z", workers=[],
    )  # fmt: skip


def test_its_shards_lie_by_thousands_and_are_found_again(output: Output, layout: LayoutName) -> None:
    assert Output(output.path).shards() == list(NUMBERS)
    assert Output(output.path).next_shard() == 1002
    assert {one.name for one in output.path.iterdir() if one.is_dir()} == {".imagemill", "000", "001"}
    inside = {one.name for one in (output.path / "001").iterdir()}
    assert inside == (
        {"000", "001"}
        if layout == "files"
        else {f"00{n}.{end}" for n in (0, 1) for end in ("tar", "parquet")}
    )
    names = [record["file_name"] for record in output.records(1001)]
    assert names == ["0010010000.png", "0010010001.png"]
    assert [failure.shard for failure in output.failures()] == [999]


def test_what_killed_writers_left_in_a_folder_of_a_thousand_goes_with_the_next_finishing(
    output: Output,
) -> None:
    left = output.path / "001" / ".000.parquet.0123456789ab.tmp"
    left.touch()
    assert f"001/{left.name}: left by a write" in " ".join(check_output(output).notes)
    finish_output(output, report_of(output))
    assert not left.exists()


def test_a_link_in_the_place_of_a_thousand_is_not_followed(
    output: Output, layout: LayoutName, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (output.path / "002").symlink_to(elsewhere)
    manifest = SubmittedManifest.from_json(output.read_json(JobFiles(output, "foxes-1").manifest)).manifest
    [entry, *_] = expand(manifest, BUILT_IN["instant"])
    store = ShardStore(
        output, 2000, "1-a", [entry], job_id="foxes-1", column_names=(), adopt_below=0, layout=layout
    )
    store.save(0, drawn(entry.request), RENDERED_BY)
    with pytest.raises(OutputError, match=r"002 is in the way: it is not a shard"):
        store.commit([])
    assert not any(elsewhere.iterdir())


def test_nothing_is_wrong_with_it(output: Output) -> None:
    checkup = check_output(output)
    assert (checkup.images, checkup.failed, checkup.problems) == (11, 1, [])


def test_plan_finds_all_that_is_there(output: Output, tmp_path: Path) -> None:
    plan = plan_submission(prepare(tmp_path / "foxes.yaml", Settings()), Settings())
    assert (plan.survey.held, plan.survey.to_render, plan.orphaned) == (11, 1, 0)


def test_datasets_reads_it_by_its_card_in_order(output: Output, layout: LayoutName) -> None:
    dataset = load_dataset(str(output.path), split="train", streaming=True)
    samples = [sample if layout == "files" else sample["json"] for sample in dataset]
    asked = [n for n in range(12) if n != 6]
    assert [sample["text"] for sample in samples] == [f"fox {n}" for n in asked]
    assert [sample["index"] for sample in samples] == (list(range(11)) if layout == "files" else asked)
    assert len(load_dataset(str(output.path), split="train")) == 11


@pytest.mark.parametrize("layout", ["webdataset"], indirect=True)
def test_webdataset_reads_it_by_braces(output: Output) -> None:
    urls = "::".join(f"{output.path}/{part}" for part in output.names.braces(998, 1001).split("::"))
    assert urls == f"{output.path}/000/{{998..999}}.tar::{output.path}/001/{{000..001}}.tar"
    keys = [sample["__key__"] for sample in WebDataset(urls, shardshuffle=False)]
    assert keys == ["0009980000", "0009980001", "0009990001"] + [
        f"00100{n}000{p}" for n in (0, 1) for p in (0, 1)
    ]


def test_what_is_broken_is_named_set_aside_and_rendered_again(
    output: Output, layout: LayoutName, tmp_path: Path
) -> None:
    (output.path / "000" / "holiday.png").write_bytes(b"x")
    if layout == "files":
        place = "001/000/0010000001.png"
        (output.path / place).write_bytes(b"")
    else:
        place = "001/000.tar/0010000001.png"
        tar = output.path / "001/000.tar"
        data = tar.read_bytes()
        at = data.index(b"\x89PNG", data.index(b"0010000001.png"))
        tar.write_bytes(data[: at + 40] + b"\0" * 8 + data[at + 48 :])
    found = diagnose(output, Settings(), repair=False)
    assert [problem.file for problem in found.problems if problem.kind != "missing"] == [
        place,
        "000/holiday.png",
    ]
    (output.path / "000" / "holiday.png").unlink()
    mended = diagnose(output, Settings(), repair=True)
    assert mended.repair is not None
    assert (list(mended.repair.shards), mended.checkup.images) == ([1000], 10)
    kept = "001/000/0010000001.png" if layout == "files" else "001/000.tar"
    assert (output.path / mended.repair.folder / kept).exists()
    assert [problem.kind for problem in mended.problems] == ["missing"]
    plan = plan_submission(prepare(tmp_path / "foxes.yaml", Settings()), Settings())
    assert plan.survey.to_render == 2


def test_a_shard_that_is_gone_is_missed_by_its_name(output: Output, layout: LayoutName) -> None:
    for file in (output.path / "001").glob("001*"):
        file.rename(output.path.with_name(file.name))
    lost = [problem for problem in check_output(output).problems if problem.kind == "lost"]
    assert "no shard is called 000/002–000/997" in lost[0].what


def test_drawn_images_have_the_places_of_its_files(output: Output) -> None:
    places = {one.place for one in draw(output, None, 1, SampleCounts())}
    assert {"000/999/0009990001.png", "001/001/0010010001.png"} <= places


def test_an_export_of_few_is_flat_and_a_copy_without_hidden_files_is_the_same_output(
    output: Output, layout: LayoutName, tmp_path: Path
) -> None:
    write_export(output.path, tmp_path / "new", layout, Settings(), options=Options(shard_size=4))
    assert Output(tmp_path / "new").shards() == [0, 1, 2]
    copy = tmp_path / "copy"
    copy.mkdir()
    for one in output.path.glob("[0-9]*"):
        one.rename(copy / one.name)
    write_export(copy, tmp_path / "newer", layout, Settings(), options=Options(shard_size=4))
    assert Output(tmp_path / "newer").shards() == [0, 1, 2]


def test_a_repair_of_a_whole_shard_leaves_nothing_of_it(output: Output, layout: LayoutName) -> None:
    if layout == "files":
        (output.path / "000/998/metadata.jsonl").unlink()
    else:
        (output.path / "000/998.tar").write_bytes(b"")
    mended = diagnose(output, Settings(), repair=True)
    assert mended.checkup.images == 9
    assert 998 not in Output(output.path).shards()
    assert [problem.kind for problem in mended.problems] == ["missing"]


def test_in_a_bucket_it_is_the_same(bucket: str, tmp_path: Path) -> None:
    output = rendered(Output.at(f"s3://{bucket}/sets/foxes"), "webdataset", tmp_path)
    again = Output.at(output.label)
    assert (again.names, again.shards(), again.next_shard()) == (ShardNames(6), list(NUMBERS), 1002)
    assert {one.name for one in again.store.list()} >= {"000", "001", "job.json", "README.md"}
    assert sorted(one.name for one in again.store.list("001")) == [
        f"00{n}.{ending}" for n in (0, 1) for ending in ("parquet", "tar")
    ]
    checkup = check_output(again)
    assert (checkup.images, checkup.failed, checkup.problems) == (11, 1, [])
    plan = plan_submission(prepare(tmp_path / "foxes.yaml", Settings()), Settings())
    assert (plan.survey.held, plan.survey.to_render) == (11, 1)
