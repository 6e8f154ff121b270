from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.errors import LeaseLost
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import Submit, claim, must_claim


def test_a_lease_that_runs_out_goes_to_another_and_fences_the_first(
    ledger: Ledger, wait_until: Callable[..., None], submit_job: Submit
) -> None:
    submit_job(1)
    first = must_claim(ledger, "w1", lease=0.2)
    assert claim(ledger, "w2") is None
    found: list[Claim | None] = []
    wait_until(lambda: found.append(claim(ledger, "w2")) or found[-1], "the shard is free again")
    second = found[-1]
    assert second is not None and second.shard == first.shard and second.attempt != first.attempt
    assert ledger.renew({first: [], second: []}, 30) == ["lost", "held"]
    for late in (ledger.record, ledger.complete):
        with pytest.raises(LeaseLost):
            late(first, [0], {})
    ledger.release(first)
    assert ledger.record(second, [0], {}) == 1


def test_a_renewed_lease_is_kept(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1)
    found = must_claim(ledger, lease=0.3)
    for _ in range(4):
        assert ledger.renew({found: []}, 0.3) == ["held"]
        assert ledger.reap() == 0


def test_a_released_shard_is_the_next_to_be_claimed(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(3)
    first = must_claim(ledger)
    ledger.release(first)
    again = must_claim(ledger)
    assert (again.shard, again.attempt > first.attempt) == (first.shard, True)


def test_a_wiped_and_resubmitted_job_refuses_the_old_incarnation(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    submit_job(2)
    old = must_claim(ledger)
    client.flushall()
    submit_job(2)
    assert must_claim(ledger).shard == old.shard
    assert ledger.renew({old: []}, 30) == ["lost"]
    with pytest.raises(LeaseLost):
        ledger.complete(old, [0], {})


@pytest.mark.parametrize("look", ["reap", "renew"])
def test_time_without_a_look_at_the_leases_does_not_count_but_a_late_look_costs_a_second(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, look: str
) -> None:
    job_id = submit_job(2)
    found, other = must_claim(ledger, lease=30), must_claim(ledger, "w2", lease=30)

    def left(claim_: Claim) -> float:
        (ends,) = client.zmscore(redis_keys.LEASES, [f"{job_id}/{claim_.shard}"])
        seconds, micros = client.time()
        return float(ends) / 1000 - seconds - micros / 1e6

    def away(minutes: int) -> None:
        """As if Redis, or everybody, had been away since the last look."""
        client.decrby(redis_keys.REAPED, minutes * 60_000)
        for member in client.zrange(redis_keys.LEASES, 0, -1):
            client.zincrby(redis_keys.LEASES, -minutes * 60_000, member)

    for looks in range(1, 4):
        away(10)
        if look == "reap":
            assert ledger.reap() == 0
        else:
            assert ledger.renew({other: []}, 30) == ["held"]
            assert 28 < left(other) <= 30
        assert 27 - looks < left(found) <= 31 - looks
    for _ in range(40):
        away(1)
        ledger.reap()
    with pytest.raises(LeaseLost):
        ledger.record(found, [0], {})
