"""A submission into a bucket, and its recovery."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import JobError, OutputError
from jobs.ledger import redis_keys
from jobs.ledger.job import Controlled
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.output import Output
from jobs.output.writer import WRITER, OutputWriter, Writer
from jobs.settings import Settings
from producer.submit.output_writes import said_wait
from producer.submit.recover import recover_job
from producer.submit.writing import cancel_job
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind
from tests.producer.submit.desk import Desk
from tests.reported import Reported


def test_a_submission_says_for_how_long_it_waits_for_copies_of_an_earlier_jobs_uploads(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(settled=0.1))
    output, reported = Output.at(f"s3://{bucket}/foxes"), Reported()
    output.close_attempts(said_wait(output, reported))
    assert reported.lines == []
    output.store.replace(".imagemill/uploads/00001/000001-a/new-0badcafe/00001.tar", b"left there")
    output.close_attempts(said_wait(output, reported))
    assert reported.lines == [
        f"s3://{bucket}/foxes: holds uploads of an earlier job; waiting 1 s until no copy of them can be "
        "under way"
    ]


def test_a_job_is_recovered_on_a_machine_that_never_saw_its_output(
    desk: Desk, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of one"))
    submitted = desk.submit(3, output=f"s3://{bucket}/cats", layout="webdataset")
    word = desk.ledger.word()
    desk.client.flushdb()
    desk.client.set(redis_keys.LEDGER, word)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of another"))
    recovered = recover_job(tmp_path / "cats.yaml", Settings(), desk.queue)
    assert (recovered.job_id, recovered.left) == (submitted.job_id, 3)


def test_a_recovery_whose_bucket_refuses_says_so(
    desk: Desk, bucket: str, object_store: BreakableStore, tmp_path: Path
) -> None:
    desk.submit(3, output=f"s3://{bucket}/cats", layout="webdataset")
    desk.client.flushdb()
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.LIST}), status=403))
    with pytest.raises(OutputError, match=r"cats/\.imagemill/jobs cannot be read \(the store refuses it"):
        recover_job(tmp_path / "cats.yaml", Settings(), desk.queue)


def test_a_job_that_was_cancelled_since_another_ledger_had_its_output_is_waited_for(
    desk: Desk, bucket: str
) -> None:
    keys = {"output": f"s3://{bucket}/cats", "layout": "webdataset"}
    job_id, output = desk.submit(3, **keys).job_id, Output.at(keys["output"])
    other = OutputWriter(output, Writer(job="foxes-1", incarnation="foxes"), lambda: "other")
    output.store.remove(WRITER)
    other.take(lambda _line: None)
    other.free()
    with pytest.raises(JobError, match=f"foxes-1 of another Redis has had it .*`imagemill cancel {job_id}`"):
        desk.submit(3, **keys)
    desk.ledger.control(job_id, "cancel")
    with pytest.raises(JobError, match=f"{job_id}, .* is ending there: wait for it"):
        desk.submit(3, **keys)


def test_cancelling_a_job_that_no_worker_ends_leaves_its_output_to_other_ledgers(
    desk: Desk, bucket: str
) -> None:
    job_id = desk.submit(3, output=f"s3://{bucket}/cats", layout="webdataset").job_id
    output = Output.at(f"s3://{bucket}/cats")
    came_to: list[tuple[Controlled, bool]] = []
    for _ in range(2):
        cancel_job(
            desk.ledger,
            job_id,
            told=lambda how: came_to.append((how, output.read_json(WRITER)["free"])),
        )
    # The first leaves it to a worker, which may come and write the report.
    assert came_to == [("ok", False), ("ended", False)]
    assert output.read_json(WRITER)["free"] is True


def test_cancelling_a_job_that_cannot_be_read_leaves_its_output_to_other_ledgers(
    desk: Desk, bucket: str
) -> None:
    job_id = desk.submit(3, output=f"s3://{bucket}/cats", layout="webdataset").job_id
    desk.client.hdel(redis_keys.job(job_id), "state")
    cancel_job(desk.ledger, job_id)
    assert job_id not in desk.ledger.job_ids()
    assert Output.at(f"s3://{bucket}/cats").read_json(WRITER)["free"] is True


def test_cancelling_a_job_leaves_an_output_that_another_ledger_has_taken_over(
    desk: Desk, bucket: str
) -> None:
    job_id = desk.submit(3, output=f"s3://{bucket}/cats", layout="webdataset").job_id
    output = Output.at(f"s3://{bucket}/cats")
    output.store.remove(WRITER)
    OutputWriter(output, Writer(job="foxes-1", incarnation="foxes"), lambda: "other").take(lambda _line: None)
    for _ in range(2):
        cancel_job(desk.ledger, job_id)
    assert desk.ledger.status(job_id).state == "finished"
    assert output.read_json(WRITER)["free"] is False
