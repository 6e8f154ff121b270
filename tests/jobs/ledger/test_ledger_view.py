"""What can be read of the ledger, as it was written by `Ledger`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.errors import JobError
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from producer.embedded_redis import EmbeddedRedis

Submit = Callable[..., str]


@pytest.fixture
def view(redis_server: EmbeddedRedis) -> LedgerView:
    return LedgerView(redis_server.url)


def claim(ledger: Ledger, worker: str) -> Claim:
    found = ledger.claim(worker, lease=30, loaded="", idle=0, load_time=0, models=())
    assert found is not None
    return found


@pytest.mark.parametrize("read", ["status", "spec", "submission", "first_shard", "incarnation"])
def test_an_unknown_job_is_named_with_those_there_are(
    view: LedgerView, submit_job: Submit, read: str
) -> None:
    submit_job()
    with pytest.raises(JobError, match=r"no job 'dogs-1'.*cats-1"):
        getattr(view, read)("dogs-1")


def test_jobs_are_listed_oldest_first_and_those_that_expired_no_more(
    view: LedgerView, submit_job: Submit, redis_server: EmbeddedRedis
) -> None:
    assert view.job_ids() == []
    names = ["zebras-1", "ants-1", "cats-1"]
    assert [submit_job(name=name[:-2], output=f"/data/{name}") for name in names] == names
    assert view.job_ids() == names
    client = redis.Redis.from_url(redis_server.url)
    client.delete(redis_keys.job("ants-1"))
    assert view.job_ids() == ["zebras-1", "cats-1"]
    assert client.zcard(redis_keys.JOBS) == 2


def test_a_job_is_read_back_as_it_was_stored(
    view: LedgerView, ledger: Ledger, submit_job: Submit, job_spec: Callable[..., object]
) -> None:
    job_id = submit_job(2, max_failures=9)
    assert view.spec(job_id) == job_spec(max_failures=9)
    assert sorted(view.shard_blobs(job_id)) == [b"blob 0", b"blob 1"]
    assert (bytes(view.done_bits(job_id)), view.failures(job_id)) == (b"", {})
    failures = {n: {"shard": 0, "position": n, "image_id": f"{n:016x}", "reason": "black"} for n in (2, 1)}
    ledger.record(claim(ledger, "w1"), [0, 3], failures)
    assert bytes(view.done_bits(job_id)) == bytes([0b1001_0000])
    assert list(view.failures(job_id).items()) == sorted(failures.items())


def test_a_status_names_who_renders_the_job_now_and_what_they_wait_for(
    view: LedgerView, ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(3)
    ledger.heartbeat("w1", {"notice": ""})
    ledger.heartbeat("w2", {"notice": "no space left"})
    claim(ledger, "w2")
    claim(ledger, "w1")
    ledger.release(claim(ledger, "w3"))
    status = view.status(job_id)
    assert (status.workers, status.notices) == (["w1", "w2"], {"w2": "no space left"})
    assert (status.shards_ready, status.shards_leased) == (1, 2)
    assert view.workers_of(job_id) == ["w1", "w2", "w3"]


def test_the_workers_alive_are_listed_with_the_facts_they_gave(
    view: LedgerView, ledger: Ledger, redis_server: EmbeddedRedis
) -> None:
    ledger.heartbeat("w2", {"slots": 2})
    ledger.heartbeat("w1", {"slots": 1, "loaded": "m"})
    assert list(view.workers().items()) == [("w1", {"slots": "1", "loaded": "m"}), ("w2", {"slots": "2"})]
    redis.Redis.from_url(redis_server.url).delete(redis_keys.worker("w2"))
    assert list(view.workers()) == ["w1"]


def test_a_finished_jobs_rate_is_that_of_its_whole_run(
    view: LedgerView, ledger: Ledger, submit_job: Submit, redis_server: EmbeddedRedis
) -> None:
    job_id = submit_job()
    assert view.status(job_id).images_per_second == 0
    ledger.complete(claim(ledger, "w1"), range(4), {})
    assert view.status(job_id).images_per_second > 0
    ledger.finish(claim(ledger, "w1"))
    client = redis.Redis.from_url(redis_server.url)
    client.hset(redis_keys.job(job_id), mapping={"started": 10_000, "last_image": 12_000})
    assert view.status(job_id).images_per_second == 2.0
