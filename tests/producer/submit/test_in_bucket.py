"""What a submission into a bucket says of uploads that were left there."""

from __future__ import annotations

import pytest

from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.output import Output
from producer.submit.output_writes import said_wait
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
