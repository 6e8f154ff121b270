"""A retry sends back what its job did not bring into the output, once, and nothing else."""

from __future__ import annotations

import pytest

from jobs.errors import JobError
from jobs.ledger.shard import decode_shard
from jobs.request import ImageRequest
from producer.submit.retry import retry_job
from tests.producer.submit.desk import Desk


def test_retry_gives_back_what_failed_and_what_was_never_rendered_and_nothing_else(desk: Desk) -> None:
    desk.submit(11, shard_size=4)
    assert desk.render(failed=[2]) == [0, 1, 2, 3]
    asked = desk.stored("cats-1")
    desk.ledger.control("cats-1", "cancel")
    desk.finish()
    before = desk.queued()
    assert retry_job("cats-1", desk.queue) == 8
    assert desk.queued() > before
    status = desk.ledger.status("cats-1")
    assert (status.state, status.run, status.left, status.failed, status.done) == ("sealed", 2, 8, 0, 3)
    assert [desk.render(), desk.render(failed=[9])] == [[2, 4, 5, 6], [7, 8, 9, 10]]
    desk.finish()
    assert desk.ledger.status("cats-1").outcome == "failures"
    # Image 9 lies in two shards by now.
    assert retry_job("cats-1", desk.queue) == 1
    claim = desk.claim()
    spec = desk.ledger.spec("cats-1")
    shard = decode_shard(claim.blob, ImageRequest.from_mapping(spec.base), spec.name)
    assert (list(shard.indices), list(shard.entries)) == ([9], [asked[9]])
    desk.put_in_output(int(claim.shard), shard.entries)
    desk.ledger.complete(claim, [9], {})
    desk.finish()
    status = desk.ledger.status("cats-1")
    assert (status.outcome, status.run, status.done, status.left) == ("complete", 3, 11, 0)
    assert retry_job("cats-1", desk.queue) == 0
    assert desk.ledger.status("cats-1").state == "finished"


def test_a_retrys_shards_have_numbers_that_the_output_does_not_use(desk: Desk) -> None:
    desk.submit(4)
    desk.render(failed=[0])
    desk.render(failed=[3])
    desk.finish()
    desk.put_in_output(6, [])
    retry_job("cats-1", desk.queue)
    assert desk.shard_numbers("cats-1") == [0, 1, 7]


def test_what_a_later_job_rendered_is_not_sent_back(desk: Desk) -> None:
    desk.submit(4)
    asked = desk.asked()
    desk.ledger.control("cats-1", "cancel")
    desk.finish()
    desk.put_in_output(0, asked[:3])
    assert retry_job("cats-1", desk.queue) == 1
    assert desk.render() == [3]
    desk.finish()
    assert desk.ledger.status("cats-1").outcome == "complete"
    assert retry_job("cats-1", desk.queue) == 0


def test_what_was_counted_but_never_reached_the_output_is_sent_back(desk: Desk) -> None:
    desk.submit(4, shard_size=4)
    claim = desk.claim()
    desk.ledger.record(claim, [0, 1], {})
    desk.ledger.control("cats-1", "cancel")
    desk.ledger.release(claim)
    desk.finish()
    assert retry_job("cats-1", desk.queue) == 4
    status = desk.ledger.status("cats-1")
    assert (status.done, status.left) == (0, 4)
    assert desk.render() == [0, 1, 2, 3]
    desk.finish()
    assert desk.ledger.status("cats-1").outcome == "complete"


def test_a_retry_leaves_alone_what_another_job_is_writing(desk: Desk) -> None:
    desk.submit(4)
    desk.render(failed=[0])
    desk.render()
    desk.finish()
    desk.submit(6)
    attempt = desk.output.spool_folder(2, desk.claim().attempt)
    attempt.mkdir(parents=True)
    before = desk.ledger.status("cats-1")
    with pytest.raises(JobError, match=r"cats-2 is writing there: .*, then retry cats-1"):
        retry_job("cats-1", desk.queue)
    assert attempt.exists()
    assert desk.ledger.status("cats-1") == before


def test_an_attempt_that_was_frozen_before_its_job_was_cancelled_can_commit_no_more_once_it_is_retried(
    desk: Desk,
) -> None:
    desk.submit(4)
    claim = desk.claim()
    frozen = desk.output.spool_folder(0, claim.attempt)
    frozen.mkdir(parents=True)
    desk.ledger.control("cats-1", "cancel")
    desk.ledger.release(claim)
    desk.finish()
    assert retry_job("cats-1", desk.queue) == 4
    assert not frozen.exists()


def test_an_unfinished_job_is_not_retried(desk: Desk) -> None:
    desk.submit(4)
    with pytest.raises(JobError, match="cats-1 is sealed"):
        retry_job("cats-1", desk.queue)
    with pytest.raises(JobError, match="no job 'cats-7'"):
        retry_job("cats-7", desk.queue)
