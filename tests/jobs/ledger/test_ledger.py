import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

import pytest
import redis

from jobs.errors import JobError, LeaseLost, LedgerError, LedgerUnavailable, OtherHardware
from jobs.ledger import redis_keys
from jobs.ledger.job import Bits, Claim, JobSpec, SlotsKey, Staged, Submission
from jobs.ledger.ledger import STAGED, Ledger
from producer.embedded_redis import EmbeddedRedis

MakeSpec = Callable[..., JobSpec]
Submit = Callable[..., str]
SIZE = SlotsKey(device="card", precision="bf16", revision="1", height=512, width=512)


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(redis_server.url)


def claim(
    ledger: Ledger,
    worker: str = "w1",
    *,
    lease: float = 30.0,
    loaded: str = "",
    idle: float = 0.0,
    load_time: float = 0.0,
    models: tuple[str, ...] = (),
) -> Claim | None:
    return ledger.claim(worker, lease=lease, loaded=loaded, idle=idle, load_time=load_time, models=models)


def must_claim(ledger: Ledger, worker: str = "w1", **how: object) -> Claim:
    found = claim(ledger, worker, **how)  # type: ignore[arg-type]
    assert found is not None
    return found


def indices(found: Claim) -> list[int]:
    return list(range(int(found.shard) * 4, int(found.shard) * 4 + 4))


def failure(index: int) -> dict[int, dict[str, object]]:
    return {index: {"shard": 0, "position": index, "image_id": f"{index:016x}", "reason": "black"}}


def send_back(ledger: Ledger, job_id: str, done: Iterable[int], shard: int = 1) -> None:
    """The first retry of a job: these images are done, and `again` is to be rendered."""
    bits = Bits()
    for index in done:
        bits.turn(index)
    ledger.stage("word", [(shard, b"again")])
    ledger.retry(job_id, ledger.incarnation(job_id), 1, bits, Staged("word", 1, shard, 1))


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


def test_only_bits_that_turn_are_counted(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    assert ledger.record(found, [0, 1], {}) == 2
    assert ledger.record(found, [0, 1, 2], {}) == 1
    assert ledger.record(found, [2], failure(2)) == 0
    status = ledger.status(job_id)
    assert (status.done, status.failed, status.left) == (3, 0, 1)


def test_an_image_that_failed_and_was_rendered_after_all_is_no_failure(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.record(found, [], failure(3))
    assert (ledger.status(job_id).failed, ledger.status(job_id).left) == (1, 3)
    ledger.complete(found, [0, 1, 2, 3], {})
    status = ledger.status(job_id)
    assert (status.done, status.failed, status.left) == (4, 0, 0)


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
    assert claim(ledger, loaded=loaded, idle=1.9) is None
    assert must_claim(ledger, loaded=loaded, idle=2.0).job_id == "b-1"


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
    assert must_claim(ledger, loaded=loaded, load_time=8.0).job_id == "a-1"
    assert must_claim(ledger, loaded=loaded, load_time=5.0).job_id == "b-1"
    assert must_claim(ledger, loaded=loaded, load_time=5.0).job_id == "a-1"


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


def test_a_paused_job_is_claimed_by_nobody_until_it_is_resumed(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(2)
    ledger.control(job_id, "pause")
    assert claim(ledger) is None
    ledger.control(job_id, "resume")
    assert claim(ledger) is not None


def test_a_cancelled_job_finishes_once_its_leases_are_returned(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(3)
    found = must_claim(ledger)
    ledger.record(found, [0], {})
    ledger.control(job_id, "cancel", "by hand")
    assert ledger.renew({found: []}, 30) == ["ending"]
    assert claim(ledger) is None
    ledger.release(found)
    ledger.finish(must_claim(ledger))
    status = ledger.status(job_id)
    assert (status.outcome, status.done, status.left, status.reason) == ("cancelled", 1, 11, "by hand")
    with pytest.raises(JobError, match="finished already"):
        ledger.control(job_id, "cancel")


def test_max_failures_stops_the_job(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(3, max_failures=2)
    found = must_claim(ledger)
    ledger.record(found, [0], failure(1))
    assert ledger.status(job_id).ending == ""
    ledger.record(found, [], failure(2))
    assert ledger.status(job_id).ending == "stopped"
    ledger.complete(found, [0, 3], failure(1) | failure(2))
    ledger.finish(must_claim(ledger))
    status = ledger.status(job_id)
    assert (status.outcome, status.failed) == ("stopped", 2)
    assert "max_failures is 2" in status.reason


def test_flagged_pictures_count_once_and_towards_max_failures(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(3, max_failures=3)
    found = must_claim(ledger)
    ledger.record(found, [0, 1], {}, flagged={1})
    ledger.record(found, [1], {}, flagged={1})
    status = ledger.status(job_id)
    assert (status.done, status.flagged, status.ending) == (2, 1, "")
    ledger.record(found, [2], failure(3), flagged={2})
    status = ledger.status(job_id)
    assert (status.done, status.flagged, status.failed, status.ending) == (3, 2, 1, "stopped")


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


def test_a_refusal_ends_by_itself(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, submit_job: Submit
) -> None:
    monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 0)
    job_id = submit_job(2)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "a hiccup")
    assert ledger.status(job_id).refusals == {}
    assert claim(ledger, "w1") is not None


def test_a_late_refusal_leaves_nothing_behind(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    late = must_claim(ledger, "w1")
    ledger.release(late)
    found = must_claim(ledger, "w2")
    ledger.complete(found, indices(found), {})
    ledger.finish(must_claim(ledger, "w2"))
    ledger.refuse(late, "w1", "too late")
    assert not client.exists(redis_keys.job(job_id, "refusals"))


def test_an_output_has_one_active_job(ledger: Ledger, submit_job: Submit, job_spec: MakeSpec) -> None:
    job_id = submit_job(2)
    assert ledger.create(job_spec(), "digest", 1) == (job_id, False)
    with pytest.raises(JobError, match=f"{job_id} is writing there"):
        ledger.create(job_spec(), "another", 1)
    for number in range(2):
        found = must_claim(ledger)
        ledger.complete(found, [number * 4 + i for i in range(4)], {})
    ledger.finish(must_claim(ledger))
    assert ledger.create(job_spec(), "another", 1) == ("cats-2", True)


def test_job_numbers_go_on_from_the_larger_of_redis_and_the_output(
    ledger: Ledger, client: redis.Redis, job_spec: MakeSpec
) -> None:
    assert ledger.create(job_spec(), "d", 7)[0] == "cats-7"
    other = job_spec(output="/elsewhere")
    assert ledger.create(other, "d", 1)[0] == "cats-8"


def test_a_second_submitter_of_an_open_job_is_stopped_by_the_cursor(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(1, seal=False)
    incarnation = ledger.incarnation(job_id)
    assert ledger.submission(job_id) == Submission(incarnation, "open", 4, 4, 1, 0)
    ledger.add(job_id, incarnation, 4, 8, [(1, 4, b"x")], seal=False)
    with pytest.raises(JobError, match="another submit"):
        ledger.add(job_id, incarnation, 4, 8, [(1, 4, b"x")], seal=False)
    assert ledger.status(job_id).total == 8
    ledger.add(job_id, incarnation, 8, 8, [], seal=True)
    with pytest.raises(JobError, match="sealed"):
        ledger.add(job_id, incarnation, 8, 8, [], seal=True)


def test_an_open_job_does_not_finish_before_it_is_sealed(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(1, seal=False)
    found = must_claim(ledger)
    ledger.complete(found, indices(found), {})
    assert ledger.status(job_id).state == "open"
    assert claim(ledger) is None
    ledger.add(job_id, ledger.incarnation(job_id), 4, 4, [], seal=True)
    assert must_claim(ledger).kind == "finish"


def test_an_empty_job_finishes(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(0)
    ledger.finish(must_claim(ledger))
    assert ledger.status(job_id).outcome == "complete"


def test_a_refusing_worker_is_not_offered_the_job_again_until_it_forgets(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    found = must_claim(ledger, "w1")
    ledger.refuse(found, "w1", "holds another revision")
    assert claim(ledger, "w1") is None
    assert ledger.waiting("w1", ()) == 0
    assert must_claim(ledger, "w2").shard == found.shard
    assert ledger.status(job_id).refusals == {"w1": "holds another revision"}
    ledger.forget_refusals("w1")
    assert claim(ledger, "w1") is not None


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
    with pytest.raises(JobError, match="has expired: run the same command again"):
        ledger.retry(job_id, incarnation, 1, Bits(b"\xb0"), Staged("word", 2, 1, 2))
    with pytest.raises(JobError, match="Redis no longer holds it"):
        ledger.retry(job_id, "another", 1, Bits(b"\xb0"), Staged("word", 2, 1, 2))
    assert ledger.status(job_id) == before
    assert claim(ledger) is None


def test_a_speed_is_that_of_the_latest_ten_minutes_of_rendering_and_is_forgotten_in_a_month(
    ledger: Ledger, client: redis.Redis
) -> None:
    other = replace(SIZE, height=8)
    assert ledger.rates() == {}
    ledger.add_work(SIZE, 600, 2.0)
    ledger.add_work(SIZE, 100, 8.0)
    ledger.add_work(other, 10, 1.0)
    assert ledger.rates() == {SIZE: 70.0, other: 10.0}
    for _ in range(20):
        ledger.add_work(SIZE, 6000, 600.0)
    assert ledger.rates()[SIZE] == pytest.approx(10.0, rel=1e-4)
    client.expire(redis_keys.RATES, 5)
    ledger.add_work(other, 10, 1.0)
    assert 29 * 86400 < client.ttl(redis_keys.RATES) <= 30 * 86400


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
        return "imagemill:output:HASH" if key.startswith("imagemill:output:") else key

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


def test_a_redis_that_is_away_full_or_locked_is_told_apart(
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


def test_the_first_slots_of_a_job_hold_and_what_was_measured_is_known_to_the_next(
    ledger: Ledger, submit_job: Submit
) -> None:
    for name in "abc":
        submit_job(1, output=f"/{name}", name=name)
    first, second, third = (must_claim(ledger) for _ in range(3))
    assert ledger.settle_slots(first, SIZE) == 0
    assert ledger.settle_slots(first, SIZE, slots=8) == 8
    assert ledger.settle_slots(first, SIZE, slots=32) == 8
    assert ledger.settle_slots(second, SIZE) == 8
    for other in ({"precision": "fp32"}, {"revision": "2"}, {"height": 64}, {"width": 64}):
        assert ledger.settle_slots(third, replace(SIZE, **other)) == 0  # type: ignore[arg-type]


def test_slots_that_were_asked_for_are_not_known_to_the_next_job(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1, output="/a", name="a")
    submit_job(1, output="/b", name="b")
    first, second = must_claim(ledger), must_claim(ledger, "w2")
    assert ledger.settle_slots(first, SIZE, slots=6, measured=False) == 6
    assert ledger.settle_slots(first, SIZE) == 6
    assert ledger.settle_slots(second, SIZE) == 0


def test_the_least_cap_lowers_a_jobs_slots_and_neither_another_jobs_nor_what_was_measured(
    ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(1, output="/a", name="a")
    submit_job(1, output="/b", name="b")
    first, second = must_claim(ledger), must_claim(ledger, "w2")
    ledger.settle_slots(first, SIZE, slots=32)
    for cap, slots in ((16, 16), (4, 4), (8, 4)):
        ledger.cap_slots(first, SIZE, cap)
        assert ledger.settle_slots(first, SIZE) == slots
    assert ledger.settle_slots(second, SIZE) == 32


@pytest.mark.parametrize("changes", [{"device": "other card"}, {"precision": "fp32"}])
def test_another_kind_of_device_is_refused_unless_it_may_be_mixed_in(
    ledger: Ledger, submit_job: Submit, changes: dict[str, str]
) -> None:
    job_id = submit_job(1)
    found, other = must_claim(ledger), replace(SIZE, **changes)  # type: ignore[arg-type]
    ledger.settle_slots(found, SIZE, slots=8)
    for slots in (0, 4):
        with pytest.raises(OtherHardware) as caught:
            ledger.settle_slots(found, other, slots=slots)
        assert str(caught.value).startswith(
            f"{job_id} was begun on card in bf16, this worker is {other.kind}:"
        )
        assert "--mixed-hardware" in str(caught.value)
    assert ledger.settle_slots(found, other, slots=4, mixed=True) == 4
    for size in (SIZE, other):
        assert ledger.settle_slots(found, replace(size, width=64), slots=2) == 2


def test_slots_of_a_job_that_was_wiped_or_finished_meanwhile_are_the_lost_leases(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    late = must_claim(ledger)
    ledger.complete(late, indices(late), {})
    ledger.finish(must_claim(ledger))
    for call in (lambda: ledger.settle_slots(late, SIZE, slots=8), lambda: ledger.cap_slots(late, SIZE, 8)):
        with pytest.raises(LeaseLost):
            call()
    assert not client.exists(redis_keys.job(job_id, "rows"), redis_keys.SLOTS)
    submit_job(1)
    wiped = must_claim(ledger)
    client.flushall()
    with pytest.raises(LeaseLost):
        ledger.settle_slots(wiped, SIZE, slots=8)
    assert client.keys("*") == []


# Images that kill their workers.


@pytest.fixture
def dies(ledger: Ledger, client: redis.Redis) -> Callable[..., Claim]:
    """A worker claims the next shard, has these images in its slots, or one alone, and dies."""

    def die(slots: list[int] | None = None, *, alone: int | None = None) -> Claim:
        found = must_claim(ledger)
        ledger.renew({found: [] if slots is None else slots}, 30)
        if alone is not None:
            ledger.begin_alone(found, alone)
        client.zadd(redis_keys.LEASES, {f"{found.job_id}/{found.shard}": 1})
        assert ledger.reap() == 1
        return found

    return die


def test_what_was_in_the_slots_at_three_deaths_without_a_picture_is_suspected(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    for slots in ([0, 1], [1, 2], []):
        assert dies(slots).suspects == frozenset()
    found = must_claim(ledger)
    assert (found.suspects, found.all_suspect, found.condemned) == ({0, 1, 2}, False, frozenset())


def test_a_picture_between_two_deaths_takes_the_suspicion_away(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    dies([0, 1])
    dies([0, 1])
    found = must_claim(ledger)
    assert ledger.record(found, [3], {}) == 1
    ledger.release(found)
    dies([0, 1])
    dies([0, 1])
    assert must_claim(ledger).suspects == frozenset()


def test_what_is_recorded_again_or_adopted_takes_no_suspicion_away(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    found = must_claim(ledger)
    ledger.record(found, [3], failure(2))
    ledger.release(found)
    for _ in range(3):
        found = must_claim(ledger)
        assert ledger.record(found, [3], failure(2)) == 0
        ledger.release(found)
        dies([0, 1])
    assert must_claim(ledger).suspects == {0, 1}


def test_a_failure_takes_the_suspicion_away_as_a_picture_does(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    for image in range(4):
        for _ in range(3):
            assert dies([image]).suspects == frozenset()
        for _ in range(2):
            assert dies([image], alone=image).suspects == {image}
        found = must_claim(ledger)
        assert found.condemned == {*range(image + 1)}
        ledger.record(found, [], failure(image))
        ledger.release(found)
    found = must_claim(ledger)
    ledger.complete(found, [], {index: failure(index)[index] for index in range(4)})
    status = ledger.status(job_id)
    assert (status.outcome, status.failed, status.ending) == ("failures", 4, "")


@pytest.mark.parametrize("alone", [None, 0])
@pytest.mark.parametrize("later", [-1000, 0, 1000])
def test_a_shard_with_nothing_in_the_slots_is_not_blamed_for_its_neighbours_deaths(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, alone: int | None, later: int
) -> None:
    """`later`: ms by which the lease of who is to blame runs out after the innocent one's."""
    job_id = submit_job(2)
    for _ in range(3):
        guilty, innocent = must_claim(ledger), must_claim(ledger)
        ledger.renew({guilty: [0], innocent: []}, 30)
        if alone is not None:
            ledger.begin_alone(guilty, alone)
        seconds, _ = client.time()
        places = [f"{job_id}/{one.shard}" for one in (innocent, guilty)]
        for first, last in (places,) if later >= 0 else (places[::-1],):
            client.zadd(redis_keys.LEASES, {first: 1, last: seconds * 1000 + abs(later)})
        assert ledger.reap() == (1 if later else 2)
        client.zadd(redis_keys.LEASES, dict.fromkeys(places, 1), xx=True)
        assert ledger.reap() == (1 if later else 0)
        assert not client.hexists(redis_keys.job(job_id, "expiries"), innocent.shard)
        client.delete(redis_keys.job(job_id, "deaths"), redis_keys.job(job_id, "expiries"))


def test_a_renewal_takes_back_that_a_shard_was_excused(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    guilty, innocent = must_claim(ledger), must_claim(ledger)
    ledger.renew({guilty: [0], innocent: []}, 30)
    seconds, _ = client.time()
    places = [f"{job_id}/{one.shard}" for one in (guilty, innocent)]
    client.zadd(redis_keys.LEASES, {places[0]: 1, places[1]: seconds * 1000 + 1000})
    assert ledger.reap() == 1
    assert ledger.renew({innocent: []}, 30) == ["held"]
    client.zadd(redis_keys.LEASES, {places[1]: 1})
    assert ledger.reap() == 1
    assert client.hexists(redis_keys.job(job_id, "expiries"), innocent.shard)


def test_a_renewal_forgets_nothing_of_who_is_alone(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.begin_alone(found, 2)
    assert ledger.renew({found: [2]}, 30) == ["held"]
    client.zadd(redis_keys.LEASES, {f"{job_id}/0": 1})
    ledger.reap()
    assert must_claim(ledger).suspects == {2}


@pytest.mark.parametrize("look", ["reap", "renew"])
def test_time_in_which_nobody_looked_after_leases_does_not_count_but_a_look_costs_a_second(
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


def test_a_finishing_that_workers_die_of_goes_last_and_says_so(
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
    assert claim(ledger, "w2", loaded="cats' pipeline", idle=0.5) is None, "it waits for the other's shard"
    assert must_claim(ledger).kind == "shard"
    assert claim(ledger) is None, "who holds a shard might take it along"
    found = must_claim(ledger, "w2")
    assert (found.kind, found.job_id, found.all_suspect) == ("finish", job_id, True)
    ledger.finish(found)
    assert ledger.status(job_id).outcome == "complete"


def test_what_failed_in_the_committed_shard_is_not_done_though_an_attempt_that_died_rendered_it(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.record(found, [1, 2], {}, flagged={1})
    ledger.release(found)
    ledger.complete(must_claim(ledger), [0, 2, 3], failure(1))
    status = ledger.status(job_id)
    assert (status.outcome, status.done, status.failed, status.flagged, status.left) == (
        "failures",
        3,
        1,
        0,
        0,
    )
    assert bytes(ledger.done_bits(job_id)) == bytes([0b1011_0000])
    assert set(ledger.failures(job_id)) == {1}


def test_ten_deaths_of_which_nothing_is_known_make_the_whole_shard_suspect_and_twenty_stop_the_job(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(2)
    for _ in range(10):
        assert not dies().all_suspect
    assert dies().all_suspect
    for _ in range(8):
        dies()
    assert ledger.status(job_id).ending == ""
    dies()
    status = ledger.status(job_id)
    assert (status.state, status.outcome) == ("finishing", "stopped")
    assert "the lease of shard 0 ran out 20 times" in status.reason


def test_two_deaths_alone_condemn_an_image_and_one_has_it_rendered_alone_again(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    dies([2], alone=2)
    once = must_claim(ledger)
    assert (once.suspects, once.condemned) == ({2}, frozenset())
    ledger.release(once)
    dies([2], alone=2)
    twice = must_claim(ledger)
    assert (twice.suspects, twice.condemned) == (frozenset(), {2})
    ledger.record(twice, [0], failure(2))
    ledger.release(twice)
    again = must_claim(ledger)
    assert again.condemned == {2}, "a failure that was not committed has to be told again"
    ledger.complete(again, [0, 1, 3], failure(2))
    assert (ledger.status(job_id).outcome, ledger.status(job_id).left) == ("failures", 0)


def test_an_image_that_was_alone_and_is_done_is_charged_with_no_death(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim], client: redis.Redis
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.begin_alone(found, 2)
    ledger.record(found, [2], {})
    client.zadd(redis_keys.LEASES, {f"{job_id}/0": 1})
    assert ledger.reap() == 1
    assert client.exists(redis_keys.job(job_id, "deaths")) == 0


def test_a_worker_that_gives_its_shard_back_is_blamed_for_nothing(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    for _ in range(4):
        found = must_claim(ledger)
        ledger.renew({found: [0, 1]}, 30)
        ledger.begin_alone(found, 1)
        ledger.release(found)
    found = must_claim(ledger)
    assert (found.suspects, found.condemned) == (frozenset(), frozenset())
    assert client.exists(redis_keys.job(job_id, "deaths"), redis_keys.job(job_id, "expiries")) == 0


def test_who_lost_its_lease_can_have_nothing_alone(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    submit_job(1)
    lost = dies([0])
    must_claim(ledger)
    with pytest.raises(LeaseLost):
        ledger.begin_alone(lost, 0)


def test_retry_forgets_who_died_of_what(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim], client: redis.Redis
) -> None:
    job_id = submit_job(1)
    dies([2], alone=2)
    dies([2], alone=2)
    ledger.complete(must_claim(ledger), [0, 1, 3], failure(2))
    ledger.finish(must_claim(ledger))
    send_back(ledger, job_id, [0, 1, 3])
    assert must_claim(ledger).condemned == frozenset()
    assert client.exists(redis_keys.job(job_id, "deaths")) == 0


def test_a_shard_that_is_set_aside_leaves_its_job_to_end_with_failures(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    ledger.set_aside(must_claim(ledger), "torn")
    ledger.complete(must_claim(ledger), [4, 5, 6, 7], {})
    status = ledger.status(job_id)
    assert (status.state, status.outcome, status.left) == ("finishing", "failures", 4)
    assert status.broken == {0: "torn"}


def test_who_lost_its_lease_can_set_nothing_aside(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    lost = dies([])
    claim = must_claim(ledger)
    ledger.set_aside(lost, "torn")
    assert ledger.status(job_id).broken == {}
    ledger.complete(claim, [0, 1, 2, 3], {})
    assert ledger.status(job_id).outcome == "complete"


def test_a_job_that_ends_is_not_called_another_manifests(
    ledger: Ledger, submit_job: Submit, job_spec: MakeSpec
) -> None:
    job_id = submit_job(1)
    must_claim(ledger)
    ledger.control(job_id, "cancel")
    with pytest.raises(JobError, match=f"{job_id}, of this very manifest, is ending there"):
        ledger.create(job_spec(), "digest", 1)


def test_settings_of_another_version_are_named_as_such(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    client.set(redis_keys.job(job_id, "spec"), '{"from": "tomorrow"}')
    with pytest.raises(LedgerError, match="not as this imagemill writes them"):
        ledger.spec(job_id)


def test_settings_that_name_a_relative_output_are_refused(
    ledger: Ledger, submit_job: Submit, client: redis.Redis
) -> None:
    job_id = submit_job(1)
    key = redis_keys.job(job_id, "spec")
    client.set(key, json.dumps(asdict(ledger.spec(job_id)) | {"output": "elsewhere"}))
    with pytest.raises(LedgerError, match="output 'elsewhere': must be absolute"):
        ledger.spec(job_id)
