"""job.json's figures are the ledger's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.ledger.job import Claim, JobSpec, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from worker.finish.finish import JobReport
from worker.finish.job_report import job_report

OUTPUT = Output(Path("/data/cats"))
Submit = Callable[..., str]
Report = Callable[..., JobReport]


@pytest.fixture
def report(ledger: Ledger, job_spec: Callable[..., JobSpec]) -> Report:
    return lambda job_id, output=OUTPUT: job_report(ledger, job_id, output, job_spec())


def claim(ledger: Ledger) -> Claim:
    found = ledger.claim("w1", WorkerState(), lease=30)
    assert found is not None
    return found


def failure(index: int) -> dict[int, dict[str, object]]:
    return {index: {"shard": 0, "position": index, "image_id": "0" * 16, "reason": "black"}}


def test_a_job_with_everything_rendered_is_complete(
    ledger: Ledger, submit_job: Submit, report: Report
) -> None:
    job_id = submit_job()
    ledger.complete(claim(ledger), [0, 1, 2, 3], {})
    written = report(job_id)
    assert (written.job_id, written.manifest, written.outcome, written.reason) == (
        "cats-1",
        {"name": "cats"},
        "complete",
        None,
    )
    assert (written.images, written.done, written.failed, written.workers) == (4, 4, 0, ["w1"])
    assert written.started_at is not None
    times = [
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
        for text in (written.submitted_at, written.started_at, written.finished_at)
    ]
    assert times == sorted(times)
    status = ledger.status(job_id)
    assert 0 <= status.created - times[0].timestamp() < 1
    assert 0 <= status.ended - times[2].timestamp() < 1


def test_a_job_with_failures_says_so(ledger: Ledger, submit_job: Submit, report: Report) -> None:
    job_id = submit_job()
    ledger.complete(claim(ledger), [0, 1, 3], failure(2))
    written = report(job_id)
    assert (written.outcome, written.done, written.failed) == ("failures", 3, 1)


def test_a_job_cancelled_before_anybody_claimed_it_says_why_and_has_no_start(
    ledger: Ledger, submit_job: Submit, report: Report
) -> None:
    job_id = submit_job()
    ledger.control(job_id, "cancel", "a typo in every prompt")
    written = report(job_id)
    assert (written.outcome, written.reason, written.started_at) == (
        "cancelled",
        "a typo in every prompt",
        None,
    )
    assert (written.images, written.done) == (4, 0)


def test_the_manifest_is_the_one_that_was_submitted_with_its_prompts(
    tmp_path: Path, submit_job: Submit, report: Report
) -> None:
    job_id, output = submit_job(), Output(tmp_path)
    output.prepare()
    JobFiles(output, job_id).write_manifest({"name": "cats", "prompts": ["a cat"]})
    assert report(job_id, output).manifest == {"name": "cats", "prompts": ["a cat"]}


def test_a_job_that_is_gone_is_an_error(report: Report) -> None:
    with pytest.raises(JobError, match="no job 'cats-9'"):
        report("cats-9")
