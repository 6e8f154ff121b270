"""States that nobody could leave: an owner that is gone, a clock that stepped back, a job that all refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.errors import JobError, JobUnreadable
from jobs.ledger import redis_keys
from jobs.ledger.job import Recovery, Staged, UnreadableJob
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import MakeSpec, Submit, claim, failure, indices, must_claim, send_back

HOUR = 3_600_000


def lost(ledger: Ledger) -> Recovery:
    """A job of one shard that waits, staged for `recover`."""
    ledger.stage("word", [(0, b"again")])
    return Recovery(staged=Staged("word", 1, 0, 1), total=4, held=0, done=b"", flagged=b"", failures={})


def keys_of(client: redis.Redis, job_id: str) -> list[str]:
    return sorted(key.decode() for key in client.keys(f"{redis_keys.job(job_id)}*"))


def stepped_back(client: redis.Redis) -> None:
    """What a step of Redis' clock by an hour leaves: all that was noted before lies in the future."""
    client.incrby(redis_keys.REAPED, HOUR)
    for member in client.zrange(redis_keys.LEASES, 0, -1):
        client.zincrby(redis_keys.LEASES, HOUR, member)


@pytest.mark.parametrize("how", ["submit", "recover", "retry"])
def test_an_output_whose_jobs_main_key_is_gone_is_free_again(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec, how: str
) -> None:
    finished = ""
    if how == "retry":
        finished = submit_job(1)
        found = must_claim(ledger)
        ledger.complete(found, indices(found)[1:], failure(0))
        ledger.finish(must_claim(ledger))
    gone = submit_job(2)
    must_claim(ledger)
    client.delete(redis_keys.job(gone))
    assert ledger.writer("/data/cats") is None
    ledger.refuse_while_written("/data/cats", "go on")
    match how:
        case "submit":
            again, created = ledger.create(job_spec(), "digest", 1)
            assert created and again != gone
        case "recover":
            ledger.recover(gone, job_spec(), "digest", lost(ledger))
            again = gone
        case "retry":
            send_back(ledger, finished, [1, 2, 3])
            again = finished
    assert client.get(redis_keys.output("/data/cats")) == again.encode()
    if again != gone:
        assert keys_of(client, gone) == [], "the rest of it is dropped, too"
        assert client.zscore(redis_keys.ACTIVE, gone) is None
    assert ledger.writer("/data/cats") == again


def test_a_job_whose_main_key_is_gone_is_listed_and_can_be_cancelled(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id, other = submit_job(2), submit_job(1, name="dogs", output="/data/dogs")
    client.delete(redis_keys.job(job_id))
    found = {job.job_id: job for job in ledger.jobs()}
    gone = found[job_id]
    assert isinstance(gone, UnreadableJob) and not isinstance(found[other], UnreadableJob)
    assert "its main key is lost" in gone.reason and f"imagemill cancel {job_id}" in gone.reason
    for action in ("pause", "resume"):
        with pytest.raises(JobUnreadable, match=f"imagemill cancel {job_id}"):
            ledger.control(job_id, action)  # type: ignore[arg-type]
    assert ledger.control(job_id, "cancel") == "dropped"
    assert keys_of(client, job_id) == []
    with pytest.raises(JobError, match="there is no job 'cats-1'"):
        ledger.control(job_id, "cancel")


def test_a_number_that_redis_lost_gives_no_job_the_id_of_another(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    first = submit_job(1)
    client.delete(redis_keys.NUMBERS)
    second, created = ledger.create(job_spec(output="/data/more"), "digest", 1)
    assert (first, second, created) == ("cats-1", "cats-2", True)


def test_a_clock_that_steps_back_keeps_no_shard_of_a_dead_worker(
    ledger: Ledger, client: redis.Redis, wait_until: Callable[..., None], submit_job: Submit
) -> None:
    submit_job(1)
    dead = must_claim(ledger, "w1", lease=0.5)
    stepped_back(client)
    wait_until(lambda: ledger.reap() == 1, "its lease runs out", 20.0)
    assert must_claim(ledger, "w2").shard == dead.shard


def test_a_clock_that_steps_back_costs_no_worker_its_shard(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    submit_job(1)
    found = must_claim(ledger, lease=30)
    stepped_back(client)
    assert ledger.reap() == 0
    (ends,) = client.zmscore(redis_keys.LEASES, [f"{found.job_id}/{found.shard}"])
    seconds, micros = client.time()
    assert 25 < float(ends) / 1000 - seconds - micros / 1e6 <= 30
    assert ledger.renew({found: []}, 30) == ["held"]


def test_a_clock_that_steps_back_makes_no_refusal_longer(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 3590)
    job_id = submit_job(1)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "an hour ago")
    stepped_back(client)
    assert claim(ledger, "w1") is not None, "it has ended"
    assert ledger.status(job_id).refusals == {}


def test_a_time_of_the_last_look_that_is_rubbish_costs_nobody_a_lease(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    submit_job(1)
    found = must_claim(ledger)
    for rubbish in ("never", "nan", "-inf", "1e300", "5"):
        client.set(redis_keys.REAPED, rubbish)
        assert ledger.reap() == 0, rubbish
        (ends,) = client.zmscore(redis_keys.LEASES, [f"{found.job_id}/{found.shard}"])
        assert float(ends) / 1000 - client.time()[0] <= 31, rubbish


def test_a_job_that_every_worker_refuses_ends_when_it_is_cancelled(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    ledger.heartbeat("w1", {})
    ledger.refuse(must_claim(ledger, "w1"), "w1", "its model is not there")
    assert claim(ledger, "w1") is None
    assert ledger.control(job_id, "cancel") == "ok"
    ledger.finish(must_claim(ledger, "w1"))
    assert ledger.status(job_id).outcome == "cancelled"


def test_a_job_that_no_worker_can_even_finish_is_ended_by_cancelling_it_again(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, job_spec: MakeSpec
) -> None:
    job_id = submit_job(1)
    ledger.heartbeat("w1", {})
    ledger.control(job_id, "cancel")
    with pytest.raises(JobError, match="finishing already"):
        ledger.control(job_id, "cancel")  # a worker that is alive will do it
    ledger.refuse(must_claim(ledger, "w1"), "w1", "the disk is gone")
    assert ledger.control(job_id, "cancel") == "ended"
    assert ledger.status(job_id).outcome == "cancelled"
    assert [event[b"job"] for _, event in client.xrange(redis_keys.EVENTS)] == [job_id.encode()]
    assert ledger.create(job_spec(), "digest", 1)[1], "the output is free"


@pytest.mark.parametrize("refusal", ["another's", "run out"])
def test_a_finishing_job_that_a_living_worker_does_not_refuse_is_left_to_it(
    ledger: Ledger, submit_job: Submit, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    job_id = submit_job(1)
    ledger.control(job_id, "cancel")
    ledger.heartbeat("w2", {})
    if refusal == "run out":
        monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 0)
        ledger.refuse(must_claim(ledger, "w2"), "w2", "a while ago")
    else:
        ledger.heartbeat("w1", {})
        ledger.refuse(must_claim(ledger, "w1"), "w1", "the disk is gone")
    with pytest.raises(JobError, match="finishing already"):
        ledger.control(job_id, "cancel")
    ledger.finish(must_claim(ledger, "w2"))
    assert ledger.status(job_id).outcome == "cancelled"


def test_a_worker_that_refused_to_render_a_job_may_finish_it(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job(1)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "its model is not there")
    found = must_claim(ledger, "w2")
    ledger.complete(found, indices(found), {})
    assert ledger.status(job_id).refusals == {}
    assert must_claim(ledger, "w1").kind == "finish"


@pytest.mark.parametrize(
    "forged", [redis_keys.ACTIVE, redis_keys.NUMBERS, "others", redis_keys.job("dogs-1", "spec")]
)
@pytest.mark.parametrize("way", ["relist", "finish", "drop", "retry"])
def test_a_forged_name_of_a_jobs_output_key_costs_no_other_key(
    ledger: Ledger, client: redis.Redis, submit_job: Submit, forged: str, way: str
) -> None:
    submit_job(1, name="dogs", output="/data/dogs")
    ledger.control("dogs-1", "pause")
    job_id = submit_job(0 if way == "retry" else 1)
    if way == "retry":
        ledger.finish(must_claim(ledger))
    # A text that says the job's id is what a key of an output holds.
    if forged == "others":
        client.set(forged, job_id)
    before = (client.type(forged), client.get(forged) if client.type(forged) == b"string" else None)
    client.hset(redis_keys.job(job_id), "output_key", forged)
    match way:
        case "relist":
            for _ in range(25):  # each looks at any one of the jobs
                ledger.reap()
        case "finish":
            ledger.control(job_id, "cancel")
            assert ledger.control(job_id, "cancel") == "ended"
        case "drop":
            client.hset(redis_keys.job(job_id), "state", "rubbish")
            assert ledger.control(job_id, "cancel") == "dropped"
        case "retry":
            with pytest.raises(JobError, match="Redis lost which output it writes to"):
                send_back(ledger, job_id, [])
    assert (client.type(forged), client.get(forged) if before[0] == b"string" else None) == before


def test_a_cancelled_job_without_any_worker_is_ended_by_cancelling_it_again(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    assert [ledger.control(job_id, "cancel") for _ in range(2)] == ["ok", "ended"]
    assert ledger.status(job_id).state == "finished"


def test_a_cancelled_job_whose_workers_died_is_ended_without_a_worker(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    must_claim(ledger, lease=0.0)
    ledger.control(job_id, "cancel")
    assert ledger.control(job_id, "cancel") == "ended"


def test_a_job_of_a_later_version_is_refused_with_the_reason_and_is_still_listed(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    client.hset(redis_keys.job(job_id), "wire", redis_keys.WIRE + 1)
    with pytest.raises(JobUnreadable, match="wire version 2, this imagemill reads 1"):
        ledger.spec(job_id)
    assert "a later version" in ledger.status(job_id).trouble
    assert ledger.control(job_id, "cancel") == "ended"


def test_a_job_of_a_version_without_a_wire_version_is_read(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    assert client.hget(redis_keys.job(job_id), "wire") == str(redis_keys.WIRE).encode()
    client.hdel(redis_keys.job(job_id), "wire", "flagged", "held", "priority", "waiting_since", "last_claim")
    status = ledger.status(job_id)
    assert (status.flagged, status.held, status.priority, status.trouble) == (0, 0, 0, "")
    assert ledger.spec(job_id).name == "cats"
    found = must_claim(ledger)
    assert ledger.complete(found, indices(found), {}) == 4


def test_a_list_of_what_waits_that_was_lost_is_made_again_and_all_counts_are_exact(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(3)
    found = must_claim(ledger)
    ledger.complete(found, indices(found), {})
    client.delete(redis_keys.job(job_id, "ready"), redis_keys.job(job_id, "done"))
    ledger.reap()
    while (found := must_claim(ledger)).kind == "shard":
        ledger.complete(found, indices(found), {})
    ledger.finish(found)
    status = ledger.status(job_id)
    assert (status.outcome, status.done, status.left, status.failed) == ("complete", 12, 0, 0)
    assert ledger.done_bits(job_id).count() == 12


def test_a_job_whose_shards_are_lost_ends_with_what_it_lacks_counted(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    client.delete(redis_keys.job(job_id, "shards"), redis_keys.job(job_id, "ready"))
    ledger.reap()
    ledger.finish(must_claim(ledger))
    status = ledger.status(job_id)
    assert (status.state, status.outcome, status.left) == ("finished", "failures", 8)


def test_what_all_jobs_share_comes_back_when_it_is_lost(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    shared = {key: client.dump(key) for key in (redis_keys.JOBS, redis_keys.ACTIVE, redis_keys.LEASES)}
    shared |= {redis_keys.output("/data/cats"): client.dump(redis_keys.output("/data/cats"))}
    for key in shared:
        client.delete(key)
        ledger.reap()
        assert client.exists(key), key
    assert (ledger.job_ids(), ledger.writer("/data/cats")) == ([job_id], job_id)
    assert ledger.renew({found: []}, 30) == ["held"]
