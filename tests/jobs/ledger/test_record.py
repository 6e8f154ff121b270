from __future__ import annotations

from collections.abc import Callable

from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from tests.jobs.ledger.claims import Submit, failure, must_claim


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


def test_prompts_that_were_cut_are_counted_when_the_job_is_finished(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job(1)
    found = must_claim(ledger)
    ledger.complete(found, [0, 1, 2, 3], {})
    assert ledger.status(job_id).cut == 0
    ledger.finish(must_claim(ledger), 1)
    assert ledger.status(job_id).cut == 1


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


def test_an_image_that_failed_in_its_committed_shard_is_not_done_even_if_rendered_before(
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
