"""What the ledger says may still come to a host: none leaves while a shard could come back."""

from __future__ import annotations

import pytest
import redis

from jobs.ledger import redis_keys
from jobs.ledger.job import Addition, NewShard
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import MakeSpec, Submit, claim, indices, must_claim


def left(ledger: Ledger, *workers: str, models: tuple[str, ...] = ()) -> bool:
    return ledger.outlook(workers or ("w1",), models).left


def test_nothing_is_left_in_an_empty_ledger(ledger: Ledger) -> None:
    outlook = ledger.outlook(("w1",), ())
    assert (outlook.left, outlook.open, outlook.paused, outlook.refused) == (False, 0, 0, 0)


def test_a_job_is_left_from_its_first_shard_until_it_is_finished(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1)
    assert left(ledger)
    found = must_claim(ledger, "w2")
    assert left(ledger, "w1"), "the lease of w2 may run out"
    ledger.complete(found, indices(found), {})
    assert left(ledger), "it waits to be finished"
    finishing = must_claim(ledger, "w2")
    assert finishing.kind == "finish"
    assert left(ledger, "w1"), "w2 may die of it"
    ledger.finish(finishing)
    assert not left(ledger)


def test_a_job_of_other_models_is_left_only_to_be_finished(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1, model="model-a")
    assert not left(ledger, models=("model-b",))
    assert left(ledger, models=("model-b", "model-a"))
    found = must_claim(ledger)
    assert not left(ledger, "w2", models=("model-b",))
    ledger.complete(found, indices(found), {})
    assert left(ledger, "w2", models=("model-b",)), "any worker may finish it"


def test_a_job_is_left_until_every_worker_of_the_host_has_refused_it(
    ledger: Ledger, client: redis.Redis, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    for name in ("gpu0@a", "gpu1@a"):
        assert left(ledger, "gpu0@a", "gpu1@a")
        ledger.refuse(must_claim(ledger, name), name, "no room for the model")
    outlook = ledger.outlook(("gpu0@a", "gpu1@a"), ())
    assert (outlook.left, outlook.refused) == (False, 1)
    assert left(ledger, "gpu0@b")
    refusals = client.hgetall(redis_keys.job(job_id, "refusals"))
    over = {name: value.replace(b'"until":', b'"until":-') for name, value in refusals.items()}  # type: ignore[union-attr]
    client.hset(redis_keys.job(job_id, "refusals"), mapping=over)  # type: ignore[arg-type]
    assert not left(ledger, "gpu0@a", "gpu1@a"), "a refusal that is over would be followed by the next"
    assert claim(ledger, "gpu0@a") is not None
    assert left(ledger, "gpu0@a", "gpu1@a"), "one of them has taken it up again"


@pytest.mark.parametrize(("cancelled", "refused"), [(True, 0), (False, 1)])
def test_a_refused_report_is_no_work_once_its_job_is_cancelled(
    ledger: Ledger, submit_job: Submit, cancelled: bool, refused: int
) -> None:
    job_id = submit_job(1)
    if cancelled:
        ledger.control(job_id, "cancel")
    else:
        found = must_claim(ledger)
        ledger.complete(found, indices(found), {})
    ledger.refuse(must_claim(ledger, "w1"), "w1", "the output is not in its folder")
    outlook = ledger.outlook(("w1",), ())
    assert (outlook.left, outlook.refused) == (False, refused)
    assert left(ledger, "w2")


def test_a_paused_job_is_not_waited_for_and_what_a_worker_holds_of_it_is(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    found = must_claim(ledger, "w1")
    ledger.control(job_id, "pause")
    assert left(ledger, "w1")
    outlook = ledger.outlook(("w2",), ())
    assert (outlook.left, outlook.paused) == (False, 1)
    ledger.release(found)
    assert not left(ledger, "w1")
    ledger.control(job_id, "resume")
    assert left(ledger, "w1")


@pytest.mark.parametrize("models", [(), ("another",)])
def test_a_cancelled_job_is_left_until_its_report_is_written(
    ledger: Ledger, submit_job: Submit, models: tuple[str, ...]
) -> None:
    job_id = submit_job(2)
    found = must_claim(ledger, "w1")
    ledger.control(job_id, "cancel")
    assert left(ledger, "w2", models=models), "w1 may die before it gives the shard back"
    ledger.release(found)
    assert left(ledger, "w2", models=models)
    ledger.finish(must_claim(ledger, "w2"))
    assert not left(ledger, "w2", models=models)


def test_a_submission_that_goes_on_is_seen_by_what_grows(ledger: Ledger, job_spec: MakeSpec) -> None:
    before = ledger.outlook(("w1",), ())
    job_id, _created = ledger.create(job_spec(), "digest", 0)
    begun = ledger.outlook(("w1",), ())
    assert (begun.left, begun.open) == (False, 1)
    assert begun.growth != before.growth
    incarnation = ledger.incarnation(job_id)
    ledger.add(job_id, incarnation, Addition(cursor=0, new_cursor=1000, held=1000, seal=False, shards=[]))
    further = ledger.outlook(("w1",), ())
    assert (further.left, further.open) == (False, 1), "the output held all lines so far"
    assert further.growth not in (begun.growth, before.growth)
    assert ledger.outlook(("w1",), ()).growth == further.growth
    ledger.add(
        job_id,
        incarnation,
        Addition(cursor=1000, new_cursor=1004, seal=False, shards=[NewShard(0, 4, b"blob")]),
    )
    assert left(ledger)
    assert not left(ledger, models=("another",))


def test_a_damaged_job_hides_no_other(ledger: Ledger, client: redis.Redis, submit_job: Submit) -> None:
    first = submit_job(1, output="/a", name="a")
    submit_job(1, output="/b", name="b")
    client.delete(redis_keys.job(first))
    client.set(redis_keys.job(first), "rubbish")
    assert left(ledger)
