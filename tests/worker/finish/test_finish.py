"""The end of a job, seen with the eyes of those who read the output: `datasets`, and a person."""

import json
import os
import random

import numpy as np
import pytest
import yaml
from PIL import Image

from jobs.entry import Entry
from jobs.errors import LeaseLost, OutputError
from jobs.output.card import MARK
from jobs.output.job_files import next_job_number
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.request import ImageRequest
from worker.engine.renderer import RenderedBy
from worker.finish.finish import JobReport, finish_output
from worker.shard.store import ShardStore

TEXTS = [
    "a red fox",
    "",
    "naïve 狐 🦊👩‍👩‍👧",
    "first line\nsecond\tline\r\n",
    'quotes " and \\ and {}',
    "x" * 10_000,
    "null",
]


@pytest.fixture
def output(tmp_path):
    output = Output(tmp_path / "foxes")
    output.prepare()
    return output


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`datasets.load_dataset` without a network and with a cache of its own."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    datasets.disable_progress_bars()

    def loaded(*arguments, **options):
        splits = datasets.load_dataset(*arguments, **options, cache_dir=str(tmp_path / "cache"))
        assert list(splits) == ["train"]
        return sorted(splits["train"], key=lambda record: record["seed"])

    return loaded


def colour_of(seed):
    return tuple(random.Random(seed).choices(range(256), k=3))


def a_line(seed, text="a fox", *, record_id=None, **settings):
    columns = settings.pop("columns", {})
    options = {"model": "shapes", "revision": "sha256:" + "ab" * 32, "height": 16, "width": 16, **settings}
    return Entry.of(request=ImageRequest(prompt=text, seed=seed, **options), id=record_id, columns=columns)


def put(
    output,
    shard,
    lines,
    *,
    failed=(),
    flagged=None,
    cut=(),
    column_names=(),
    job_id="foxes-1",
    layout="files",
):
    store = ShardStore(
        output, shard, "1", lines, job_id=job_id, column_names=column_names, adopt_below=0, layout=layout
    )
    made_by = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})
    for position, line in enumerate(lines):
        if position not in failed:
            picture = np.full((16, 16, 3), colour_of(line.request.seed), np.uint8)
            told = "and a blue square" if position in cut else None
            store.save(position, picture, made_by, flagged, told)
    failures = [
        Failure(
            shard=shard,
            position=position,
            entry=lines[position],
            reason="black",
            job_id=job_id,
            command="render it",
        )
        for position in failed
    ]
    assert store.commit(failures)


def a_report(**changes):
    return JobReport(
        **{
            "job_id": "foxes-1",
            "manifest": {"name": "foxes", "prompts": ["a fox 🦊"]},
            "outcome": "finished",
            "images": 3,
            "done": 3,
            "failed": 0,
            "submitted_at": "2026-01-31T12:00:00Z",
            "started_at": "2026-01-31T12:00:01Z",
            "finished_at": "2026-01-31T12:00:09Z",
            "workers": ["gpu0@host"],
            "broken": {},
            **changes,
        }
    )


def everything(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
def test_load_dataset_gives_every_picture_with_its_caption(output, load, image_format):
    lines = [a_line(i, text, image_format=image_format) for i, text in enumerate(TEXTS)]
    put(output, 0, lines[:3])
    put(output, 1, lines[3:])
    finish_output(output, a_report())
    records = load(str(output.path))
    assert [record["text"] for record in records] == TEXTS
    assert [record["image_id"] for record in records] == [line.request.image_id for line in lines]
    for record in records:
        assert record["image"].size == (16, 16)
        seen = np.asarray(record["image"].convert("RGB")).mean(axis=(0, 1))
        assert np.abs(seen - colour_of(record["seed"])).max() < 4


def test_load_dataset_reads_columns_that_only_some_shards_and_lines_have(output, load):
    columns = {"split": "test", "weight": 2, "tags": ["a", "b"], "box": {"x": 1, "y": [2.5]}}
    wide = {"column_names": list(columns)}
    put(output, 0, [a_line(0), a_line(1)])
    put(output, 1, [a_line(2, record_id="line", columns=columns), a_line(3)], **wide, job_id="foxes-2")
    put(output, 2, [a_line(4, init_latents="f" * 64)], flagged="one flat colour", job_id="foxes-3")
    put(output, 3, [a_line(5, columns={"weight": 0.5, "tags": []})], **wide, job_id="foxes-4")
    put(output, 4, [a_line(6)], failed=[0], job_id="foxes-5")
    finish_output(output, a_report())
    records = load(str(output.path))
    assert [record["seed"] for record in records] == [0, 1, 2, 3, 4, 5]
    assert [record["flagged"] for record in records] == [None, None, None, None, "one flat colour", None]
    assert [record["init_latents"] for record in records] == [None, None, None, None, "f" * 64, None]
    assert [record["id"] for record in records] == [None, None, "line", None, None, None]
    assert {name: records[2][name] for name in columns} == columns
    assert [record["weight"] for record in records] == [None, None, 2.0, None, None, 0.5]
    assert records[2]["rendered_versions"] == {"torch": "2.13.0"}


def test_load_dataset_reads_an_output_of_one_picture(output, load):
    put(output, 0, [a_line(7)])
    finish_output(output, a_report())
    assert [record["seed"] for record in load(str(output.path))] == [7]


def test_load_dataset_reads_a_uniform_output_without_its_card_too(output, load):
    put(output, 0, [a_line(0), a_line(1)])
    put(output, 1, [a_line(2), a_line(3)], failed=[1])
    finish_output(output, a_report())
    assert (output.path / "failures.jsonl").exists()
    (output.path / "README.md").unlink()
    assert [record["seed"] for record in load(str(output.path))] == [0, 1, 2]
    assert [record["seed"] for record in load("imagefolder", data_dir=str(output.path))] == [0, 1, 2]


def test_job_json_says_what_was_asked_how_it_ended_and_what_the_output_holds(output):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1])
    report = a_report(outcome="cancelled", reason="by the user", images=9, done=2, failed=1)
    finish_output(output, report)
    job = json.loads((output.path / "job.json").read_text())
    assert (job["job_id"], job["outcome"], job["reason"]) == ("foxes-1", "cancelled", "by the user")
    assert job["images"] == {"asked": 9, "done": 2, "failed": 1, "flagged": 0}
    assert job["output"] == {"images": 2, "shards": 1, "failures": 1}
    assert job["manifest"] == {"name": "foxes", "prompts": ["a fox 🦊"]}
    assert job["times"]["finished"] == "2026-01-31T12:00:09Z"
    assert {"imagemill", "python", "torch", "diffusers"} <= set(job["versions"])
    assert next_job_number(output, "foxes") == 2


def test_failures_are_merged_and_go_when_a_later_job_rendered_them(output):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1, 2])
    finish_output(output, a_report(done=1, failed=2))
    records = [json.loads(line) for line in (output.path / "failures.jsonl").read_text().splitlines()]
    assert [(record["shard"], record["position"], record["reason"]) for record in records] == [
        (0, 1, "black"),
        (0, 2, "black"),
    ]
    assert records[0]["command"] == "render it"
    put(output, 1, [a_line(2)], job_id="foxes-2")
    finish_output(output, a_report(job_id="foxes-2", images=1, done=1))
    assert [failure.entry.request.seed for failure in output.failures()] == [1]
    put(output, 2, [a_line(1)], job_id="foxes-3")
    finish_output(output, a_report(job_id="foxes-3", images=1, done=1))
    assert not (output.path / "failures.jsonl").exists()


@pytest.mark.parametrize(
    "layouts", [("files",) * 3, ("webdataset", "files", "webdataset")], ids=["files", "both"]
)
def test_the_contact_sheet_shows_the_outputs_pictures(output, layouts):
    for shard, layout in enumerate(layouts):
        put(output, shard, [a_line(40 * shard + i) for i in range(40)], layout=layout)
    finish_output(output, a_report())
    with Image.open(output.path / "preview.jpg") as sheet:
        assert sheet.format == "JPEG"
        # 100 of 120, the 45th of them is number 54.
        x, y = 45 % 11, 45 // 11
        seen = sheet.getpixel((int((x + 0.5) * sheet.width / 11), int((y + 0.4) * sheet.height / 10)))
    assert np.abs(np.subtract(seen, colour_of(45 * 120 // 100))).max() < 12


def test_a_job_of_tars_ends_with_the_same_files(output):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1], layout="webdataset")
    put(output, 1, [a_line(3)], layout="webdataset")
    finish_output(output, a_report())
    records = [json.loads(line) for line in (output.path / "failures.jsonl").read_text().splitlines()]
    assert [(record["shard"], record["position"]) for record in records] == [(0, 1)]
    report = json.loads((output.path / "job.json").read_text())
    assert report["output"] == {"images": 3, "shards": 2, "failures": 1}
    with Image.open(output.path / "preview.jpg") as sheet:
        assert sheet.format == "JPEG"
    assert not output.spool.exists()


def test_finishing_makes_the_parquet_that_a_crash_kept_from_a_tar(output):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1], layout="webdataset")
    parquet = output.path / "00000.parquet"
    before = parquet.read_bytes()
    parquet.unlink()
    finish_output(output, a_report())
    assert parquet.read_bytes() == before


def test_finishing_again_gives_the_same_files(output):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1])
    finish_output(output, a_report())
    first = everything(output.path)
    finish_output(output, a_report())
    assert everything(output.path) == first
    assert not output.spool.exists()


@pytest.mark.parametrize("step", range(4))
def test_finishing_after_a_crash_in_the_middle_gives_the_same_files(output, monkeypatch, step):
    put(output, 0, [a_line(0), a_line(1), a_line(2)], failed=[1])
    left = step
    replace = os.replace

    def crash(source, target):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            finish_output(output, a_report())
    assert not (output.path / "job.json").exists()
    finish_output(output, a_report())
    after_crash = everything(output.path)
    finish_output(output, a_report())
    assert everything(output.path) == after_crash
    assert {"failures.jsonl", "preview.jpg", "README.md", "job.json"} < set(after_crash)


def test_the_spool_of_a_job_that_left_images_open_stays_for_the_next(output):
    store = ShardStore(output, 0, "1", [a_line(0)], job_id="foxes-1", column_names=(), adopt_below=0)
    finish_output(output, a_report(outcome="cancelled", images=3, done=1, failed=1))
    assert store.folder.exists()
    finish_output(output, a_report(images=3, done=2, failed=1))
    assert not output.spool.exists()


def test_an_output_in_which_everything_failed_is_described_without_pictures(output):
    put(output, 0, [a_line(0)], failed=[0])
    finish_output(output, a_report(images=1, done=0, failed=1))
    names = {file.name for file in output.path.iterdir()}
    assert names == {".imagemill", "00000", "failures.jsonl", "job.json"}


def test_the_card_is_valid_and_somebodys_own_readme_is_kept_and_reported(output, caplog):
    put(output, 0, [a_line(0), a_line(1)])
    finish_output(output, a_report())
    readme = output.path / "README.md"
    front = yaml.safe_load(readme.read_text().split("---")[1])
    assert front["configs"][0]["features"][0] == {"name": "image", "dtype": "image"}
    assert "2 pictures" in readme.read_text()
    readme.write_text(readme.read_text().replace("2 pictures", "5 pictures"))
    finish_output(output, a_report())
    assert "2 pictures" in readme.read_text()
    assert not caplog.messages
    readme.write_text(readme.read_text().replace(MARK, "My own words."))
    finish_output(output, a_report())
    assert "My own words." in readme.read_text()
    assert [message.split()[0] for message in caplog.messages] == [str(readme)]


def test_a_damaged_shard_is_named_and_nothing_is_written_over_it(output):
    put(output, 0, [a_line(0)])
    output.metadata_file(0).write_text("{")
    with pytest.raises(OutputError, match=r"00000/metadata\.jsonl:1"):
        finish_output(output, a_report())
    assert not (output.path / "job.json").exists()


def test_what_killed_writers_left_is_taken_away_and_nothing_else(output):
    put(output, 0, [a_line(0)])
    left = [".job.json.0a6c38c206c0.tmp", ".imagemill/.rows.json.0a6c38c206c0.tmp"]
    left += [".imagemill/jobs/.foxes-1.json.0a6c38c206c0.tmp"]
    others = [".mine.tmp", "notes.0a6c38c206c0.tmp"]
    for name in left + others:
        (output.path / name).touch()
    finish_output(output, a_report())
    assert [name for name in left + others if (output.path / name).exists()] == others


def test_who_slept_before_its_rename_puts_no_old_report_over_a_newer_jobs(output, arm_failpoints):
    put(output, 0, [a_line(1)])
    newer = Output(output.path)

    def asleep(name, path=None):
        if name == "before rename" and path.name == "job.json" and not slept:
            slept.append(path)
            newer.close_attempts()
            finish_output(newer, a_report(job_id="foxes-2", images=1, done=1), attempt="000002-b")

    slept = []
    arm_failpoints(asleep)
    with pytest.raises(LeaseLost, match="another job has begun there"):
        finish_output(output, a_report(images=1, done=1), attempt="000001-a")
    assert json.loads((output.path / "job.json").read_text())["job_id"] == "foxes-2"
    assert not list(output.path.rglob("*.tmp"))
    assert not output.spool.exists()


def test_who_slept_before_it_takes_the_spool_away_takes_nothing_of_a_newer_job_along(output):
    put(output, 0, [a_line(1)])
    old = output.spool / "00004" / "000001-a"
    newer = output.spool / "00005" / "000001-z"
    old.mkdir(parents=True)
    (output.spool / "00004" / "stray").touch()
    asked = []

    def asleep():
        asked.append(1)
        if len(asked) == 3:
            newer.mkdir(parents=True)

    finish_output(output, a_report(images=1, done=1), check=asleep)
    assert [*output.spool.glob("*/*")] == [newer]
    finish_output(output, a_report(images=1, done=1))
    assert not output.spool.exists()


@pytest.mark.parametrize("name", ["failures.jsonl", "preview.jpg", "README.md"])
def test_who_slept_changes_nothing_that_describes_a_newer_job(output, arm_failpoints, name):
    put(output, 0, [a_line(1), a_line(2)], failed=[1])
    finish_output(output, a_report(images=2, done=1, failed=1))
    (output.path / name).write_bytes(b"newer")
    if name == "README.md":
        (output.path / name).write_text(f"newer\n{MARK}\n")
    before = (output.path / name).read_bytes()

    def asleep(at, path=None):
        if at == "before rename" and path.name == name:
            output.close_attempts()

    arm_failpoints(asleep)
    with pytest.raises(LeaseLost, match="another job has begun there"):
        finish_output(output, a_report(images=2, done=1, failed=1))
    assert (output.path / name).read_bytes() == before


@pytest.mark.parametrize("link", ["spool", "spool/00007", "spool/00007/000001-a"])
def test_what_a_link_in_the_spool_leads_to_is_left_alone(output, tmp_path, link):
    put(output, 0, [a_line(1)])
    (tmp_path / "dogs" / "00000" / "000001-a").mkdir(parents=True)
    mine = tmp_path / "dogs" / "00000" / "000001-a" / "mine.png"
    mine.touch()
    place = output.private / link
    if link == "spool":
        output.spool.rename(output.private / "away")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(tmp_path / "dogs")
    finish_output(output, a_report(images=1, done=1))
    assert mine.exists()


def test_the_spool_of_a_cancelled_job_keeps_what_was_rendered_and_not_the_finishings_own(output):
    put(output, 0, [a_line(1)])
    kept = output.spool / "00004" / "000001-a"
    kept.mkdir(parents=True)
    finish_output(output, a_report(outcome="cancelled", images=2, done=1))
    assert [*output.spool.glob("*/*")] == [kept]


def test_a_finishing_that_workers_die_of_makes_no_preview_and_leaves_no_old_one(output):
    put(output, 0, [a_line(1)])
    finish_output(output, a_report(images=1, done=1))
    assert "preview.jpg" in (output.path / "README.md").read_text()
    finish_output(output, a_report(images=1, done=1), preview=False)
    assert not (output.path / "preview.jpg").exists()
    assert "preview.jpg" not in (output.path / "README.md").read_text()
    assert json.loads((output.path / "job.json").read_text())["output"]["images"] == 1


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_prompts_that_were_cut_are_counted_and_load(tmp_path, load, layout):
    output = Output(tmp_path / "out")
    output.prepare()
    put(output, 0, [a_line(seed) for seed in range(3)], job_id="foxes-1", layout=layout)
    put(output, 1, [a_line(seed) for seed in range(3, 6)], cut=[0, 2], job_id="foxes-2", layout=layout)
    assert finish_output(output, a_report(job_id="foxes-2")) == 2
    assert json.loads((output.path / "job.json").read_text())["images"]["prompt_cut"] == 2
    assert finish_output(output, a_report(job_id="foxes-1")) == 0
    assert "prompt_cut" not in json.loads((output.path / "job.json").read_text())["images"]
    told = [record.get("prompt_cut") for shard in (0, 1) for record in output.records(shard)]
    assert told == [None, None, None, "and a blue square", None, "and a blue square"]
    if layout == "files":
        assert [record["prompt_cut"] for record in load(str(output.path))] == told
