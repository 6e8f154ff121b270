"""job.json's figures are the ledger's."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.job import Claim, JobSpec
from jobs.ledger import Ledger
from jobs.output import Output
from producer.embedded_redis import EmbeddedRedis
from worker.job_report import job_report

SPEC = JobSpec(
    manifest={"name": "cats"},
    base={},
    name="cats",
    output="/data/cats",
    model="instant",
    revision="1",
    precision="auto",
    column_names=[],
    shard_size=4,
    priority=5,
    max_failures=None,
    retention=3600,
)
OUTPUT = Output(Path(SPEC.output))


@pytest.fixture
def ledger(redis_server: EmbeddedRedis) -> Ledger:
    return Ledger(redis_server.url)


def submit(ledger: Ledger) -> str:
    job_id, _ = ledger.create(SPEC, "digest", 1)
    ledger.add(job_id, ledger.incarnation(job_id), 0, 4, [(0, 4, b"blob")], seal=True)
    return job_id


def claim(ledger: Ledger) -> Claim:
    found = ledger.claim("w1", lease=30, loaded="", idle=0, load_time=0, models=())
    assert found is not None
    return found


def failure(index: int) -> dict[int, dict[str, object]]:
    return {index: {"shard": 0, "position": index, "image_id": "0" * 16, "reason": "black"}}


def test_a_job_with_everything_rendered_is_complete(ledger: Ledger) -> None:
    job_id = submit(ledger)
    ledger.complete(claim(ledger), [0, 1, 2, 3], {})
    report = job_report(ledger, job_id, OUTPUT, SPEC)
    assert (report.job_id, report.manifest, report.outcome, report.reason) == (
        "cats-1",
        {"name": "cats"},
        "complete",
        None,
    )
    assert (report.images, report.done, report.failed, report.workers) == (4, 4, 0, ["w1"])
    assert report.started_at is not None
    times = [
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
        for text in (report.submitted_at, report.started_at, report.finished_at)
    ]
    assert times == sorted(times)
    status = ledger.status(job_id)
    assert 0 <= status.created - times[0].timestamp() < 1
    assert 0 <= status.ended - times[2].timestamp() < 1


def test_a_job_with_failures_says_so(ledger: Ledger) -> None:
    job_id = submit(ledger)
    ledger.complete(claim(ledger), [0, 1, 3], failure(2))
    report = job_report(ledger, job_id, OUTPUT, SPEC)
    assert (report.outcome, report.done, report.failed) == ("failures", 3, 1)


def test_a_job_cancelled_before_anybody_claimed_it_says_why_and_has_no_start(ledger: Ledger) -> None:
    job_id = submit(ledger)
    ledger.control(job_id, "cancel", "a typo in every prompt")
    report = job_report(ledger, job_id, OUTPUT, SPEC)
    assert (report.outcome, report.reason, report.started_at) == (
        "cancelled",
        "a typo in every prompt",
        None,
    )
    assert (report.images, report.done) == (4, 0)


def test_the_manifest_is_the_one_that_was_submitted_with_its_prompts(ledger: Ledger, tmp_path: Path) -> None:
    job_id, output = submit(ledger), Output(tmp_path)
    output.prepare()
    output.write_job_manifest(job_id, {"name": "cats", "prompts": ["a cat"]})
    assert job_report(ledger, job_id, output, SPEC).manifest == {"name": "cats", "prompts": ["a cat"]}


def test_a_job_that_is_gone_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(JobError, match="no job 'cats-9'"):
        job_report(ledger, "cats-9", OUTPUT, SPEC)
