"""What can be read of the ledger, as it was written by `Ledger`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
import redis

from jobs.errors import JobError, JobUnreadable, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import Submit, failure, must_claim


@pytest.fixture
def view(redis_server: EmbeddedRedis) -> LedgerView:
    return LedgerView(redis_server.url)


@pytest.mark.parametrize("read", ["status", "spec", "submission", "first_shard", "incarnation"])
def test_an_unknown_job_is_named_with_those_there_are(
    view: LedgerView, submit_job: Submit, read: str
) -> None:
    submit_job()
    with pytest.raises(JobError, match=r"no job 'dogs-1'.*cats-1"):
        getattr(view, read)("dogs-1")


def test_all_jobs_and_workers_are_read_in_as_few_round_trips_as_one(
    view: LedgerView, ledger: Ledger, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = redis.Connection.send_packed_command

    def counted(connection: redis.Connection, *command: object, **how: object) -> None:
        sent.append(command)
        send(connection, *command, **how)

    def round_trips(read: Callable[[], object]) -> int:
        sent.clear()
        read()
        return len(sent)

    def begin(jobs: range) -> None:
        for number in jobs:
            submit_job(name=f"n{number}", output=f"/{number}")
            ledger.heartbeat(f"w{number}", {"notice": f"no room for {number}"})
            must_claim(ledger, f"w{number}")

    begin(range(1))
    view.status("n0-1")
    monkeypatch.setattr(redis.Connection, "send_packed_command", counted)
    of_one = [round_trips(read) for read in (view.jobs, view.workers, view.job_ids)]
    begin(range(1, 120))
    assert [round_trips(read) for read in (view.jobs, view.workers, view.job_ids)] == of_one
    assert sum(of_one) <= 8
    notices = [job.notices for job in view.jobs() if isinstance(job, JobStatus)]
    assert notices == [{f"w{number}": f"no room for {number}"} for number in range(120)]


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
    ledger.record(must_claim(ledger, "w1"), [0, 3], failures)
    assert bytes(view.done_bits(job_id)) == bytes([0b1001_0000])
    assert list(view.failures(job_id).items()) == sorted(failures.items())


def test_a_status_names_the_workers_of_the_job_and_what_they_wait_for(
    view: LedgerView, ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(3)
    ledger.heartbeat("w1", {"notice": "", "loading": "loading org/m: 41 s"})
    ledger.heartbeat("w2", {"notice": "no space left"})
    must_claim(ledger, "w2")
    must_claim(ledger, "w1")
    ledger.release(must_claim(ledger, "w3"))
    status = view.status(job_id)
    assert (status.workers, status.notices) == (["w1", "w2"], {"w2": "no space left"})
    assert status.loading == {"w1": "loading org/m: 41 s"}
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
    ledger.complete(must_claim(ledger, "w1"), range(4), {})
    ledger.finish(must_claim(ledger, "w1"))
    client = redis.Redis.from_url(redis_server.url)
    client.hset(redis_keys.job(job_id), mapping={"started": 10_000, "last_image": 12_000})
    assert view.status(job_id).images_per_second == 2.0


def test_settings_of_another_version_are_named_as_such(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    client.set(redis_keys.job(job_id, "spec"), '{"from": "tomorrow"}')
    with pytest.raises(LedgerError, match="not as this imagemill writes them"):
        ledger.spec(job_id)


@pytest.mark.parametrize("odd", ["²", "٣", "-1", "", "one", "1" * 5000])
def test_fields_and_versions_that_are_no_decimal_number_end_no_reading(
    ledger: Ledger, submit_job: Submit, client: redis.Redis, odd: str
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.record(found, [], failure(2))
    for part in ("shards", "failures", "broken"):
        client.hset(redis_keys.job(job_id, part), odd, "rubbish")
    client.hset(redis_keys.job(job_id), "wire", odd)
    assert list(ledger.shard_blobs(job_id)) == [b"blob 0"]
    assert list(ledger.failures(job_id)) == [2]
    assert ledger.status(job_id).broken == {}
    with pytest.raises(JobUnreadable, match="it is of wire version"):
        ledger.spec(job_id)


def test_settings_that_name_a_relative_output_are_refused(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    key = redis_keys.job(job_id, "spec")
    client.set(key, json.dumps(asdict(ledger.spec(job_id)) | {"output": "elsewhere"}))
    with pytest.raises(LedgerError, match="output 'elsewhere': must be absolute"):
        ledger.spec(job_id)


# Of a worker on two slow cores: seconds since the one before, and pictures that were recorded then. The first
# took the time of downloading and loading the model. Eight images share a forward, so they end together.
RECORDED = [(71.0, 3), (0.4, 3), (0.5, 2), *[(19.6, 4), (0.6, 4)] * 14]


def test_no_time_left_is_told_until_a_rate_can_be_trusted_and_then_it_is_near_the_truth(
    view: LedgerView, ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(30)
    claim = must_claim(ledger, "w1")
    done, told, left = 0, [], sum(seconds for seconds, _ in RECORDED)
    for seconds, pictures in RECORDED:
        for field in ("started", "window_at"):
            if float(client.hget(redis_keys.job(job_id), field) or 0) > 0:
                client.hincrby(redis_keys.job(job_id), field, -int(seconds * 1000))
        left -= seconds
        ledger.record(claim, range(done, done + pictures), {})
        done += pictures
        status = view.status(job_id)
        if status.eta_seconds is not None and left > 60:
            told.append((done, status.eta_seconds / left))
    assert told[0][0] <= 16, "it is told from the second forward on"
    assert all(0.4 < ratio < 2.5 for _, ratio in told), told


@pytest.mark.parametrize(("stored", "most"), [(0, 20), (7, 20), (20, 20), (5_000, 20)])
def test_some_failures_are_all_of_few_and_the_same_few_of_many(
    stored: int, most: int, ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    job_id = submit_job()
    failure = {"shard": 0, "position": 1, "image_id": "a" * 16, "reason": "all black " * 10}
    with ledger.client.pipeline() as pipe:
        for index in range(stored):
            pipe.hset(redis_keys.job(job_id, "failures"), str(index), json.dumps(failure))
        pipe.execute()
    found, count = ledger.some_failures(job_id, most)
    assert count == stored
    assert list(found) == sorted(found)
    assert min(most, stored) <= len(found) <= 3 * most
    assert all(one == failure for one in found.values())
    assert ledger.some_failures(job_id, most) == (found, count)
    if stored <= most:
        assert found == ledger.failures(job_id)


def test_failures_of_another_kind_are_none(ledger: Ledger, submit_job: Callable[..., str]) -> None:
    job_id = submit_job()
    ledger.client.set(redis_keys.job(job_id, "failures"), "x")
    assert (ledger.some_failures(job_id, 20), ledger.failures(job_id)) == (({}, 0), {})


def test_the_name_of_a_job_whose_time_is_over_goes_though_nobody_lists_jobs(
    ledger: Ledger, submit_job: Callable[..., str]
) -> None:
    gone, there = submit_job(), submit_job(name="dogs", output="/data/dogs")
    ledger.client.delete(redis_keys.job(gone))
    ledger.client.zrem(redis_keys.ACTIVE, gone)
    for _ in range(100):  # each looks at any one of the two
        ledger.reap()
    assert ledger.client.zrange(redis_keys.JOBS, 0, -1) == [there.encode()]
