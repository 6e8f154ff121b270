"""Fences, where no fault can be timed so that it shows when one is missing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.errors import JobError, LeaseLost
from jobs.ledger.job import Addition, Claim, JobSpec, NewShard, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.redis_keys import job as job_key


def claim(ledger: Ledger, worker: str = "w1", lease: float = 30.0) -> Claim:
    found = ledger.claim(worker, WorkerState(), lease=lease)
    assert found is not None
    return found


def test_a_submission_does_not_continue_in_a_job_that_was_made_again_after_a_wipe(
    ledger: Ledger, job_spec: Callable[..., JobSpec]
) -> None:
    """It has the same id: the numbers were wiped too, and the output is new."""
    job_id, _created = ledger.create(job_spec(), "digest", 1)
    before = ledger.incarnation(job_id)
    ledger.client.flushall()
    assert ledger.create(job_spec(), "digest", 1) == (job_id, True)
    with pytest.raises(JobError, match="was it wiped"):
        ledger.add(
            job_id, before, Addition(cursor=0, new_cursor=4, seal=True, shards=[NewShard(0, 4, b"blob")])
        )
    assert ledger.status(job_id).total == 0


def test_attempts_of_one_epoch_differ_when_redis_lost_its_last_second(
    ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job()
    state = {key: ledger.client.dump(key) for key in ledger.client.scan_iter("*")}
    first = claim(ledger)
    ledger.client.flushall()
    for key, value in state.items():
        ledger.client.restore(key, 0, value)
    second = claim(ledger, "w2")
    assert first.attempt[:6] == second.attempt[:6], "the epoch was counted again"
    with pytest.raises(LeaseLost):
        ledger.complete(first, [0, 1, 2, 3], {})
    assert ledger.status(job_id).done == 0
    assert ledger.complete(second, [0, 1, 2, 3], {}) == 4


def test_an_expired_lease_of_a_job_that_is_gone_is_only_dropped(
    ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job()
    claim(ledger, lease=0.0)
    for key in ledger.client.scan_iter(f"{job_key(job_id)}*"):
        ledger.client.delete(key)
    assert ledger.reap() == 1
    assert list(ledger.client.scan_iter(f"{job_key(job_id)}*")) == [], "half of the job was made again"
    assert ledger.client.zcard("imagemill:leases") == 0


def test_a_job_begins_to_finish_only_when_its_last_lease_has_ended(
    ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    """What is leased may still fail, and the outcome would be reported too early."""
    job_id = submit_job(2)
    first, second = claim(ledger), claim(ledger, "w2")
    ledger.complete(first, [0, 1, 2, 3], {})
    assert ledger.status(job_id).state == "sealed"
    ledger.complete(second, [4, 5, 6], {7: {"shard": 1, "position": 3, "image_id": "x", "reason": "raised"}})
    status = ledger.status(job_id)
    assert (status.state, status.outcome) == ("finishing", "failures")
