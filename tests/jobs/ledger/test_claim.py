from __future__ import annotations

import threading

import redis

from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import MakeSpec, Submit, claim, indices, must_claim


def test_the_lowest_priority_number_goes_first(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(2, output="/a", priority=5)
    submit_job(2, output="/b", priority=1, name="urgent")
    assert must_claim(ledger).job_id == "urgent-1"


def test_jobs_of_equal_priority_share_fairly(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(8, output="/a", name="a")
    submit_job(8, output="/b", name="b")
    claims = [must_claim(ledger, f"w{n}") for n in range(6)]
    assert sorted(found.job_id for found in claims) == ["a-1"] * 3 + ["b-1"] * 3
    alternating = []
    for found in claims:
        ledger.release(found)
    for _ in range(4):
        found = must_claim(ledger)
        ledger.complete(found, indices(found), {})
        alternating.append(found.job_id)
    assert sorted(alternating) == ["a-1", "a-1", "b-1", "b-1"]


def test_a_worker_keeps_its_loaded_pipeline_until_it_idled_two_seconds(
    ledger: Ledger, submit_job: Submit, job_spec: MakeSpec
) -> None:
    submit_job(1, output="/a", name="a", model="model-a")
    submit_job(2, output="/b", name="b", model="model-b", priority=1)
    loaded = job_spec(model="model-a").pipeline
    assert must_claim(ledger, loaded=loaded).job_id == "a-1"
    assert claim(ledger, loaded=loaded, idle_ms=1900) is None
    assert must_claim(ledger, loaded=loaded, idle_ms=2000).job_id == "b-1"


def test_other_work_that_waited_long_enough_makes_a_worker_change(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    submit_job(4, output="/a", name="a", model="model-a")
    submit_job(4, output="/b", name="b", model="model-b")
    loaded = job_spec(model="model-a").pipeline
    assert must_claim(ledger, loaded=loaded).job_id == "a-1"
    seconds, micros = client.time()  # type: ignore[misc]
    now = seconds * 1000 + micros // 1000
    client.hset(redis_keys.job("b-1"), "waiting_since", now - 70_000)
    assert must_claim(ledger, loaded=loaded, load_ms=8000).job_id == "a-1"
    assert must_claim(ledger, loaded=loaded, load_ms=5000).job_id == "b-1"
    assert must_claim(ledger, loaded=loaded, load_ms=5000).job_id == "a-1"


def test_other_work_of_lower_priority_never_makes_a_busy_worker_change(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    submit_job(4, output="/a", name="a", model="model-a", priority=3)
    submit_job(4, output="/b", name="b", model="model-b", priority=4)
    client.hset(redis_keys.job("b-1"), "waiting_since", 0)
    loaded = job_spec(model="model-a").pipeline
    assert must_claim(ledger, loaded=loaded).job_id == "a-1"


def test_a_worker_takes_only_the_models_it_was_started_for(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(2, model="model-a")
    assert claim(ledger, models=("model-b",)) is None
    assert ledger.waiting("w1", ("model-b",)) == 0
    assert ledger.waiting("w1", ("model-b", "model-a")) == 2
    assert claim(ledger, models=("model-b", "model-a")) is not None


def test_many_workers_never_share_a_shard(redis_server: EmbeddedRedis, submit_job: Submit) -> None:
    submit_job(200)
    taken: list[str] = []

    def work(name: str) -> None:
        ledger = Ledger(redis_server.url)
        while (found := claim(ledger, name)) is not None and found.kind == "shard":
            taken.append(found.shard)
            ledger.complete(found, indices(found), {})

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, taken)) == list(range(200))
    assert Ledger(redis_server.url).status("cats-1").done == 800


def test_a_job_whose_finishing_kills_workers_goes_last_and_is_marked(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    ledger.complete(must_claim(ledger), [0, 1, 2, 3], {})
    for _ in range(3):
        found = must_claim(ledger)
        assert (found.kind, found.all_suspect) == ("finish", False)
        client.zadd(redis_keys.LEASES, {f"{job_id}/finish": 1})
        assert ledger.reap() == 1
    submit_job(1, output="/data/dogs", name="dogs", model="other")
    assert claim(ledger, "w2", loaded="cats' pipeline", idle_ms=500) is None, "it waits for the other's shard"
    assert must_claim(ledger).kind == "shard"
    assert claim(ledger) is None, "who holds a shard might take it along"
    found = must_claim(ledger, "w2")
    assert (found.kind, found.job_id, found.all_suspect) == ("finish", job_id, True)
    ledger.finish(found)
    assert ledger.status(job_id).outcome == "complete"
