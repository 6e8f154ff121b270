"""All of the ledger in one look, and what is counted for those who watch."""

from __future__ import annotations

import time

import pytest
import redis

from jobs.errors import LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.overview import Counted
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import Submit, must_claim


def test_it_holds_what_the_single_calls_give(ledger: Ledger, submit_job: Submit) -> None:
    for name in ("a", "b"):
        submit_job(name=name, output=f"/{name}")
    ledger.heartbeat("w1", {"slots": 1})
    must_claim(ledger)
    seen = ledger.overview()
    assert [job.job_id for job in seen.jobs] == ["a-1", "b-1"]
    assert (list(seen.jobs), dict(seen.workers)) == (ledger.jobs(), ledger.workers())
    assert (seen.memory.policy, seen.memory.most, seen.memory.full) == ("noeviction", 0, False)
    assert seen.memory.used > 100_000
    assert abs(seen.now - time.time()) < 60


def test_leases_that_run_out_and_refusals_are_counted(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(3)
    assert ledger.overview().counted == Counted()
    must_claim(ledger, lease=0.0)
    must_claim(ledger, lease=0.0)  # the first has run out by now
    ledger.reap()
    ledger.refuse(must_claim(ledger), "w1", "no")
    assert ledger.overview().counted == Counted(lease_expiries=2, refusals=1)


@pytest.mark.parametrize("rubbish", ["of another kind", "no figures"])
def test_a_damaged_count_stops_nothing(ledger: Ledger, submit_job: Submit, rubbish: str) -> None:
    if rubbish == "of another kind":
        ledger.client.set(redis_keys.COUNTED, "x")
    else:
        ledger.client.hset(redis_keys.COUNTED, "lease_expiries", "x")
    submit_job()
    must_claim(ledger, lease=0.0)
    assert ledger.overview().counted == Counted()
    assert ledger.reap() == 1
    assert ledger.overview().counted.lease_expiries == (rubbish == "of another kind")


def test_a_user_without_a_right_to_the_counts_works_on(
    redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Submit
) -> None:
    """As deploy/redis_acl.sh printed it for earlier versions."""
    kept = [f"~{key}*" for key in redis_keys.SHARED if key != redis_keys.COUNTED]
    keys = [*kept, f"~{redis_keys.JOB}*", f"~{redis_keys.OUTPUT}*", f"~{redis_keys.WORKER}*"]
    ledger.client.execute_command("ACL", "SETUSER", "old", "on", ">word", "+@all", *keys)
    try:
        url = redis_server.url.partition("@")[2]
        old = Ledger(f"redis://old:word@{url}")
        with pytest.raises(redis.exceptions.NoPermissionError):
            old.client.hgetall(redis_keys.COUNTED)
        submit_job(2)
        must_claim(old, lease=0.0)
        assert old.reap() == 1
        old.refuse(must_claim(old), "w1", "no")
        seen = old.overview()
        assert (seen.counted, ledger.overview().counted) == (None, Counted())
        assert isinstance(seen.jobs[0], JobStatus)
        assert seen.jobs[0].refusals == {"w1": "no"}
    finally:
        ledger.client.execute_command("ACL", "DELUSER", "old")


def test_when_it_moved_last(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(2)
    waits = ledger.status(job_id)
    assert waits.last_moved == pytest.approx(waits.created, abs=1.0)
    ledger.client.hset(redis_keys.job(job_id), mapping={"created": 1, "waiting_since": 7_000})
    assert ledger.status(job_id).last_moved == 7.0
    must_claim(ledger)
    assert ledger.status(job_id).last_moved == pytest.approx(time.time(), abs=60)


def test_a_redis_that_is_away_is_said_to_be(redis_server: EmbeddedRedis) -> None:
    view = LedgerView(redis_server.url, timeout=1.0)
    redis_server.stop()
    with pytest.raises(LedgerUnavailable):
        view.overview()
