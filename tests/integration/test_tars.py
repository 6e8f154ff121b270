"""`layout: webdataset` through real Redis and Celery: failures, retries, kills, a layout that changes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.ledger.job import JobStatus
from jobs.output.output import Output
from producer.doctor.checkup import check_output
from tests.waiting import WaitUntil

Finished = Callable[..., JobStatus]


def statuses(output: Output) -> list[tuple[str, str]]:
    """Caption and status of every line of every parquet."""
    files = sorted(output.path.glob("*.parquet"))
    return [(line["caption"], line["status"]) for file in files for line in pq.read_table(file).to_pylist()]


@pytest.mark.usefixtures("troubled")
def test_failures_of_a_job_of_tars_are_listed_and_retried_into_new_ones(
    farm: Any, finished: Finished
) -> None:
    farm.start_worker()
    job_id = farm.submit(["good 1", "!raise", "", "!black"], shard_size=2, layout="webdataset")
    status = finished(job_id)
    assert (status.outcome, status.done, status.failed) == ("failures", 3, 1)
    output = Output(farm.output)
    rows = [row for shard in output.shards() for row in output.records(shard)]
    assert [(row["text"], row["flagged"]) for row in rows] == [
        ("good 1", None), ("", None), ("!black", "one flat colour")
    ]  # fmt: skip
    found = [json.loads(line) for line in (farm.output / "failures.jsonl").read_text().splitlines()]
    assert [failure["request"]["prompt"] for failure in found] == ["!raise"]
    assert (farm.output / "preview.jpg").is_file()
    again = farm.command("retry", job_id, "--wait")
    assert "1 image sent back" in again.stdout
    assert output.shards() == [0, 1, 2]
    assert statuses(output) == [
        ("good 1", "success"), ("!raise", "failed_to_render"), ("", "success"), ("!black", "success"),
        ("!raise", "failed_to_render"),
    ]  # fmt: skip
    assert check_output(output).problems == []


def test_a_manifest_whose_layout_changed_renders_only_what_is_new(farm: Any, finished: Finished) -> None:
    farm.start_worker()
    finished(farm.submit(6, shard_size=4, layout="webdataset"))
    status = finished(farm.submit(10, shard_size=4, layout="files"))
    assert (status.held, status.done) == (6, 4)
    assert sorted(file.name for file in farm.output.glob("[0-9]*")) == [
        "00000.parquet", "00000.tar", "00001.parquet", "00001.tar", "00002",
    ]  # fmt: skip
    assert check_output(Output(farm.output)).problems == []


def test_a_process_that_is_killed_again_and_again_leaves_whole_tars_and_no_image_twice(
    farm: Any, finished: Finished, wait_until: WaitUntil
) -> None:
    farm.start_worker(instant_seconds=0.1)
    job_id = farm.submit(120, shard_size=4, layout="webdataset")
    pid = None
    for done in (10, 40, 70):
        wait_until(lambda done=done: farm.status(job_id).done >= done, f"{done} images are done")
        wait_until(lambda pid=pid: farm.celery_pid("w1") not in (None, pid), "the supervisor started another")
        pid = farm.celery_pid("w1")
        os.kill(pid, signal.SIGKILL)
    assert finished(job_id).done == 120
    output = Output(farm.output)
    found = check_output(output)
    assert (found.problems, found.images, len(statuses(output))) == ([], 120, 120)
