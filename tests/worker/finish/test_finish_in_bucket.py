"""The end of a job whose output lies in a bucket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.entry import Entry
from jobs.errors import LeaseLost
from jobs.output.output import REPORT, Output
from jobs.output.store import Stage
from jobs.request import ImageRequest
from worker.engine.renderer import RenderedBy
from worker.finish.finish import JobReport, finish_output
from worker.shard.store import ShardStore

REPORTED = JobReport(
    job_id="foxes-1",
    manifest={"name": "foxes"},
    outcome="complete",
    images=1,
    done=1,
    failed=0,
    submitted_at="2026-01-31T12:00:00Z",
    started_at="2026-01-31T12:00:01Z",
    finished_at="2026-01-31T12:00:09Z",
    workers=["gpu0@host"],
)


@pytest.fixture
def output(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    """An output in a bucket with one shard, whose attempt died after its commit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    output = Output.at(f"s3://{bucket}/foxes")
    request = ImageRequest(prompt="a fox", seed=7, model="shapes", revision="1", height=16, width=16)
    line = Entry.of(request=request, id=None, columns={})
    store = ShardStore(
        output, 0, "1", [line], job_id="foxes-1", column_names=[], adopt_below=0, layout="webdataset"
    )
    picture = np.full((16, 16, 3), 7, np.uint8)
    store.save(0, picture, RenderedBy(precision="fp32", rows=16, device="cpu", versions={}))
    assert store.commit([])
    return output


def names(output: Output) -> set[str]:
    return set(output.store.files_below(""))


def test_a_job_that_ends_leaves_nothing_of_what_dead_attempts_had_uploaded(output: Output) -> None:
    output.store.replace(".imagemill/uploads/00000/000001-0badcafe/new-5f3a9c1e/00000.tar", b"too late")
    finish_output(output, REPORTED)
    assert names(output) == {
        "00000.tar", "00000.parquet", "job.json", "README.md", "preview.jpg",
    }  # fmt: skip
    assert not output.spool.exists()


def test_a_finisher_that_waits_for_the_copy_of_an_upload_asks_whether_it_still_holds_the_job(
    output: Output,
) -> None:
    upload = ".imagemill/uploads/00001/000001-0badcafe/new-5f3a9c1e/00001.tar"
    output.store.replace(upload, b"of a job that was cancelled")

    def check() -> None:
        if any("uploads/closing" in name for name in names(output)):
            raise LeaseLost("others have it")

    with pytest.raises(LeaseLost):
        finish_output(output, REPORTED, check=check)
    assert upload not in names(output)
    finish_output(output, REPORTED, attempt="2")
    assert not [name for name in names(output) if "uploads" in name]


def test_a_job_that_ends_makes_the_parquet_that_a_dead_attempt_did_not_and_no_other(output: Output) -> None:
    table = output.store.read("00000.parquet")
    output.store.remove("00000.parquet")
    finish_output(output, REPORTED)
    assert output.store.read("00000.parquet") == table
    output.store.replace("00000.parquet", b"another one's")
    finish_output(output, REPORTED)
    assert output.store.read("00000.parquet") == b"another one's"


def test_a_finisher_that_slept_until_another_ended_the_job_adds_nothing(output: Output) -> None:
    slept = []

    def check() -> None:
        # The one that wakes up has just uploaded its report.
        if any("finish/1/" in name for name in names(output)) and not slept:
            slept.append(1)
            finish_output(output, REPORTED, attempt="2")
            slept.append(output.store.read(REPORT))

    with pytest.raises(LeaseLost, match="another job has begun there"):
        finish_output(output, REPORTED, attempt="1", check=check)
    assert output.store.read(REPORT) == slept[1]
    assert not [name for name in names(output) if "uploads" in name]


def test_what_goes_through_a_stage_that_was_closed_is_not_there(output: Output, tmp_path: Path) -> None:
    stage = Stage(tmp_path, "00001/1", output.close_attempts)
    file = tmp_path / "00001.tar"
    file.write_bytes(b"late")
    with pytest.raises(FileNotFoundError, match=r"00001\.tar"):
        output.store.put_if_absent("00001.tar", file, stage)
    assert "00001.tar" not in names(output)
