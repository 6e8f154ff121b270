from __future__ import annotations

import pytest
import redis

from jobs.errors import LeaseLost, LedgerError, LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import SIZE, Submit, claim, failure, indices, must_claim


def test_a_job_goes_from_its_shards_to_one_finish_event(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    assert job_id == "cats-1"
    for number in range(2):
        found = must_claim(ledger)
        assert (found.kind, found.shard, found.blob) == ("shard", str(number), b"blob %d" % number)
        assert ledger.record(found, indices(found)[:2], {}) == 2
        assert ledger.complete(found, indices(found), {}) == 2
    assert ledger.status(job_id).state == "finishing"
    finish = must_claim(ledger)
    assert finish.kind == "finish"
    assert claim(ledger, "w2") is None
    ledger.finish(finish)
    status = ledger.status(job_id)
    assert (status.state, status.outcome, status.done, status.left, status.failed) == (
        "finished",
        "complete",
        8,
        0,
        0,
    )
    assert bytes(ledger.done_bits(job_id)) == b"\xff"
    events = client.xrange(redis_keys.EVENTS)
    assert len(events) == 1
    assert events[0][1][b"job"] == b"cats-1"
    with pytest.raises(LeaseLost):
        ledger.finish(finish)
    assert client.xlen(redis_keys.EVENTS) == 1


def test_every_key_is_documented_and_has_a_ttl_or_a_reason(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2, max_failures=5)
    ledger.heartbeat("w1", {"slots": 2})
    found = must_claim(ledger, "w1")
    ledger.refuse(found, "w9", "no")
    found = must_claim(ledger, "w1")
    ledger.record(found, [0], failure(1), flagged={0})
    ledger.settle_slots(found, SIZE, slots=16)
    ledger.add_work(SIZE, 640, 2.0)
    client.hset(redis_keys.job(job_id, "expiries"), "0", '{"count": 1, "images": []}')
    client.hset(redis_keys.job(job_id, "deaths"), "0", 1)
    client.hset(redis_keys.job(job_id, "broken"), "7", "torn")
    documented = {
        line.split()[0] for line in (redis_keys.__doc__ or "").splitlines() if line.startswith("imagemill:")
    }
    reasoned = {
        line.split()[0]
        for line in (redis_keys.__doc__ or "").splitlines()
        if line.startswith("imagemill:") and "none:" in line
    }

    def generic(key: str) -> str:
        key = key.replace(f"job:{job_id}", "job:ID").replace("worker:w1", "worker:NAME")
        for one, generic_key in (("output", "HASH"), ("claimable", "SET")):
            if key.startswith(f"imagemill:{one}:"):
                return f"imagemill:{one}:{generic_key}"
        return key

    while_active = {generic(key.decode()) for key in client.keys("*")}
    assert while_active <= documented, while_active - documented
    assert {generic(redis_keys.job(job_id, part)) for part in redis_keys.JOB_PARTS} <= while_active
    for number in range(2):
        if number:
            found = must_claim(ledger, "w1")
        ledger.complete(found, indices(found), {})
    ledger.finish(must_claim(ledger, "w1"))
    for key in client.keys("*"):
        assert client.ttl(key) > 0 or generic(key.decode()) in reasoned, key


def test_a_redis_that_is_away_full_or_locked_is_named_as_such(
    redis_server: EmbeddedRedis, client: redis.Redis, submit_job: Submit
) -> None:
    ledger = Ledger(redis_server.url)
    client.config_set("maxmemory", "1")
    with pytest.raises(LedgerUnavailable, match="full"):
        submit_job(2)
    port = redis_server.url.rsplit(":", 1)[1]
    with pytest.raises(LedgerError, match="password"):
        Ledger(f"redis://:wrong@127.0.0.1:{port}").ping()
    redis_server.stop()
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        ledger.ping()
