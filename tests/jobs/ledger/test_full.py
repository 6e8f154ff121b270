"""A Redis that is full, on each server that can be had: what is there can be seen, steered and ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from jobs.errors import LedgerFull
from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, JobSpec, NewShard
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow_job
from tests.jobs.ledger.claims import MakeSpec, claim, failure, indices, must_claim
from tests.redis_servers import SERVERS


@pytest.fixture(scope="module", params=SERVERS, ids=[server.name for server in SERVERS])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), binary=request.param) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        yield client


@pytest.fixture
def ledger(server: EmbeddedRedis, client: redis.Redis) -> Ledger:
    return Ledger(server.url)


def submit(ledger: Ledger, spec: JobSpec, shards: int) -> str:
    job_id, _created = ledger.create(spec, "digest", 1)
    blobs = [NewShard(number, 4, b"blob") for number in range(shards)]
    ledger.add(
        job_id, ledger.incarnation(job_id), Addition(cursor=0, new_cursor=4 * shards, seal=True, shards=blobs)
    )
    return job_id


def test_a_full_redis_can_be_looked_at_and_steered(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec
) -> None:
    job_id = submit(ledger, job_spec(), 2)
    must_claim(ledger, lease=0.0)
    client.config_set("maxmemory", 1)
    (status,) = ledger.jobs()
    assert status == ledger.status(job_id)
    assert (ledger.failures(job_id), ledger.rates(), ledger.workers()) == ({}, {}, {})
    ledger.control(job_id, "pause")
    assert ledger.status(job_id).paused
    ledger.control(job_id, "resume")
    ledger.control(job_id, "cancel", "no room")
    ledger.heartbeat("w1", {"slots": 2})
    assert list(ledger.workers()) == ["w1"]
    ledger.finish(must_claim(ledger))
    assert ledger.status(job_id).outcome == "cancelled"
    assert client.ttl(redis_keys.job(job_id, "shards")) > 0, "its room is given back"


def test_a_full_redis_lets_work_end_and_begins_none(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec
) -> None:
    job_id = submit(ledger, job_spec(), 2)
    found = must_claim(ledger)
    client.config_set("maxmemory", 1)
    assert ledger.renew({found: [0]}, 30) == ["held"]
    assert ledger.record(found, [0, 1], failure(2)) == 2
    assert ledger.complete(found, indices(found)[:2], failure(2) | failure(3)) == 0
    with pytest.raises(LedgerFull):
        claim(ledger)
    with pytest.raises(LedgerFull):
        ledger.create(job_spec(output="/data/more"), "digest", 1)
    with pytest.raises(LedgerFull):
        ledger.ping()
    assert ledger.status(job_id).shards_ready == 1


def test_a_job_is_watched_to_its_end_in_a_full_redis(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec
) -> None:
    job_id = submit(ledger, job_spec(), 1)
    found = must_claim(ledger)
    client.config_set("maxmemory", 1)
    looks = follow_job(ledger, job_id, own_worker=True)
    assert next(looks).state == "sealed"
    ledger.complete(found, indices(found), {})
    ledger.finish(must_claim(ledger))
    assert [status.outcome for status in looks] == ["complete"]
