from __future__ import annotations

import pytest
import redis

from jobs.errors import JobError
from jobs.ledger import redis_keys
from jobs.ledger.job import Bits, Staged
from jobs.ledger.ledger import STAGED, Ledger
from tests.jobs.ledger.claims import Submit, claim, failure, indices, must_claim, send_back


def test_a_retry_takes_back_bits_of_images_that_never_reached_the_output(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    found = must_claim(ledger)
    ledger.record(found, [0, 1], {}, flagged={0})
    ledger.control(job_id, "cancel")
    ledger.release(found)
    ledger.finish(must_claim(ledger))
    send_back(ledger, job_id, [7], 2)
    status = ledger.status(job_id)
    assert (status.done, status.left, status.flagged, status.state) == (1, 7, 0, "sealed")
    assert ledger.first_shard(job_id) == 2
    ledger.complete(must_claim(ledger), list(range(7)), {})
    ledger.finish(must_claim(ledger))
    status = ledger.status(job_id)
    assert (status.outcome, status.done, status.left) == ("complete", 8, 0)


def test_failures_are_sent_back_once_as_a_new_run(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.complete(found, [0, 2, 3], failure(1))
    ledger.finish(must_claim(ledger))
    assert ledger.status(job_id).outcome == "failures"
    send_back(ledger, job_id, [0, 2, 3])
    with pytest.raises(JobError, match="sent back already"):
        send_back(ledger, job_id, [0, 2, 3], 2)
    assert {client.ttl(redis_keys.job(job_id, part)) for part in (None, *redis_keys.JOB_PARTS)} == {-1, -2}
    again = must_claim(ledger)
    assert (again.shard, again.blob) == ("1", b"again")
    ledger.complete(again, [1], {})
    ledger.finish(must_claim(ledger))
    status = ledger.status(job_id)
    assert (status.outcome, status.done, status.failed, status.left, status.run) == ("complete", 4, 0, 0, 2)
    assert client.xlen(redis_keys.EVENTS) == 2


def test_what_is_to_be_sent_back_expires_and_then_the_job_is_as_it_was(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    ledger.complete(must_claim(ledger), [0, 2, 3], failure(1))
    ledger.finish(must_claim(ledger))
    before, incarnation = ledger.status(job_id), ledger.incarnation(job_id)
    ledger.stage("word", [(1, b"again"), (2, b"again")])
    assert 0 < client.ttl(redis_keys.job("word", "shards")) <= STAGED
    client.delete(redis_keys.job("word", "shards"))
    with pytest.raises(JobError, match="have expired: run the same command again"):
        ledger.retry(job_id, incarnation, 1, Bits(b"\xb0"), Staged("word", 2, 1, 2))
    with pytest.raises(JobError, match="Redis no longer holds it"):
        ledger.retry(job_id, "another", 1, Bits(b"\xb0"), Staged("word", 2, 1, 2))
    assert ledger.status(job_id) == before
    assert claim(ledger) is None


def test_lost_bits_of_an_earlier_run_send_a_later_runs_shards_round_no_more_than_helps(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.complete(found, indices(found)[:3], failure(3))
    ledger.finish(must_claim(ledger))
    send_back(ledger, job_id, [0, 1, 2])
    client.delete(redis_keys.job(job_id, "done"))
    passes = 0
    while (found := must_claim(ledger)).kind == "shard":
        ledger.complete(found, [3], {})
        passes += 1
    ledger.finish(found)
    status = ledger.status(job_id)
    assert (passes, status.outcome, status.done, status.left) == (3, "failures", 1, 3)
    ledger.stage("more", [(2, b"again")])
    ledger.retry(job_id, ledger.incarnation(job_id), 2, Bits(), Staged("more", 1, 2, 1))
    client.delete(redis_keys.job(job_id, "ready"))
    ledger.reap()
    assert must_claim(ledger).shard == "2", "another run begins from the start"
