from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.errors import JobError
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import Submit, claim, indices, must_claim


def test_a_paused_job_is_not_claimed_until_it_is_resumed(ledger: Ledger, submit_job: Submit) -> None:
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


def test_a_refusal_ends_by_itself(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, submit_job: Submit
) -> None:
    monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 0)
    job_id = submit_job(2)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "a hiccup")
    assert ledger.status(job_id).refusals == {}
    assert claim(ledger, "w1") is not None


def test_who_refused_a_job_is_known_until_it_renders_some_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, submit_job: Submit
) -> None:
    job_id = submit_job(3)
    monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 0)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "a hiccup")
    again = must_claim(ledger, "w1")
    assert ledger.status(job_id).refused_by == {"w1": "a hiccup"}, "it tries, and may refuse again"
    assert ledger.outlook(("w2",), ()).left
    ledger.record(again, [indices(again)[0]], {})
    assert ledger.status(job_id).refused_by == {}
    ledger.complete(again, indices(again), {})
    other = must_claim(ledger, "w2")
    assert ledger.outlook(("w1",), ()).left, "the lease of w2 may run out, and w1 renders the job"
    monkeypatch.setattr("jobs.ledger.ledger.REFUSAL", 300)
    ledger.refuse(must_claim(ledger, "w1"), "w1", "a damaged shard")
    ledger.complete(other, indices(other), {})
    assert ledger.status(job_id).refusals == {"w1": "a damaged shard"}, "another's pictures change nothing"


def test_a_refusal_that_holds_is_not_lifted_by_another_shard_of_its_worker(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(3)
    held = must_claim(ledger, "w1")
    ledger.refuse(must_claim(ledger, "w1"), "w1", "a damaged shard")
    ledger.complete(held, indices(held), {})
    assert ledger.status(job_id).refusals == {"w1": "a damaged shard"}
    assert claim(ledger, "w1") is None, "else it would meet the damaged shard again and again"


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


def test_a_shard_that_is_set_aside_leaves_its_job_to_end_with_failures(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    ledger.set_aside(must_claim(ledger), "torn")
    ledger.complete(must_claim(ledger), [4, 5, 6, 7], {})
    status = ledger.status(job_id)
    assert (status.state, status.outcome, status.left) == ("finishing", "failures", 4)
    assert status.broken == {0: "torn"}


def test_a_worker_that_lost_its_lease_cannot_set_its_shard_aside(
    ledger: Ledger, submit_job: Submit, dies: Callable[..., Claim]
) -> None:
    job_id = submit_job(1)
    lost = dies([])
    found = must_claim(ledger)
    ledger.set_aside(lost, "torn")
    assert ledger.status(job_id).broken == {}
    ledger.complete(found, [0, 1, 2, 3], {})
    assert ledger.status(job_id).outcome == "complete"
