"""Following a job: to its end, through outages, and not in vain when nobody takes it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import pytest

from jobs.errors import JobError, LedgerUnavailable, SettingsError
from jobs.ledger.job import Claim, JobStatus, WorkerState
from jobs.ledger.ledger import Ledger
from producer import follow as follow_module
from producer.embedded_redis import EmbeddedRedis
from producer.follow import exit_code, follow_job
from tests.reported import Reported

Submit = Callable[..., str]


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "INTERVAL", 0.01)


def claim(ledger: Ledger, worker: str = "w1", lease: float = 30) -> Claim:
    found = ledger.claim(worker, WorkerState(), lease=lease)
    assert found is not None
    return found


def refuse(ledger: Ledger, worker: str, reason: str) -> None:
    ledger.heartbeat(worker, {"slots": 2})
    ledger.refuse(claim(ledger, worker), worker, reason)


def end(ledger: Ledger, failed: bool = False) -> None:
    """Renders the one shard there is, and finishes."""
    failure: dict[int, dict[str, object]] = {
        0: {"shard": 0, "position": 0, "image_id": "0" * 16, "reason": "black"}
    }
    ledger.complete(claim(ledger), range(int(failed), 4), failure if failed else {})
    ledger.finish(claim(ledger))


def test_it_yields_until_the_job_is_finished_and_its_last_word_is_the_end(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job()
    statuses = follow_job(ledger, job_id)
    assert next(statuses).state == "sealed"
    held = claim(ledger)
    assert next(statuses).shards_leased == 1
    ledger.complete(held, range(4), {})
    assert next(statuses).state == "finishing"
    ledger.finish(claim(ledger))
    assert [status.state for status in statuses] == ["finished"]


def test_a_finished_job_is_reported_at_once(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job()
    end(ledger)
    assert [status.outcome for status in follow_job(ledger, job_id)] == ["complete"]


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 1)])
def test_the_exit_code_shows_whether_every_image_is_there(
    ledger: Ledger, failed: bool, code: int, submit_job: Submit
) -> None:
    job_id = submit_job()
    end(ledger, failed)
    *_, last = follow_job(ledger, job_id)
    assert exit_code(last) == code
    for outcome in ("cancelled", "stopped"):
        assert exit_code(dataclasses.replace(last, outcome=outcome)) == 1


def test_a_job_that_every_worker_refuses_is_an_error_with_the_reasons(
    ledger: Ledger, submit_job: Submit
) -> None:
    job_id = submit_job()
    statuses = follow_job(ledger, job_id)
    next(statuses)
    refuse(ledger, "w1", "no GPU here")
    refuse(ledger, "w2", "m: not there")
    with pytest.raises(JobError, match="m: not there; no GPU here") as caught:
        next(statuses)
    assert f"imagemill resume {job_id}" in str(caught.value)


def test_a_job_that_one_worker_would_take_is_followed_on(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job()
    refuse(ledger, "w1", "m: not there")
    ledger.heartbeat("w2", {"slots": 2})
    statuses = follow_job(ledger, job_id)
    for _ in range(3):
        assert next(statuses).refusals == {"w1": "m: not there"}


def test_refusals_of_workers_that_are_gone_do_not_count(ledger: Ledger, submit_job: Submit) -> None:
    """The next worker may hold another model."""
    job_id = submit_job()
    refuse(ledger, "w1", "m: not there")
    ledger.forget_worker("w1")
    assert next(follow_job(ledger, job_id)).state == "sealed"


def test_a_job_that_is_not_there_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(JobError, match="no job 'cats-9'"):
        next(follow_job(ledger, "cats-9"))


def test_who_follows_also_reaps(ledger: Ledger, submit_job: Submit) -> None:
    """With every worker dead, somebody must see that their shards wait again."""
    job_id = submit_job()
    claim(ledger, lease=0.05)
    statuses = follow_job(ledger, job_id)
    assert any(status.shards_ready for _, status in zip(range(500), statuses, strict=False))


def test_the_callers_check_can_end_it(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job()
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise SettingsError("the worker ended")

    with pytest.raises(SettingsError, match="the worker ended"):
        list(follow_job(ledger, job_id, check=check))
    assert len(looks) == 3


class Away(Ledger):
    """Redis is away for some looks in the middle; `looks` counts them."""

    looks = 0

    def status(self, job_id: str) -> JobStatus:
        self.looks += 1
        if 2 <= self.looks <= 5:
            raise LedgerUnavailable("Redis does not answer")
        return super().status(job_id)


def test_an_outage_of_redis_is_waited_out(redis_server: EmbeddedRedis, submit_job: Submit) -> None:
    ledger = Away(redis_server.url)
    job_id = submit_job()
    reported = Reported()
    statuses: Iterator[JobStatus] = follow_job(ledger, job_id, reported, own_worker=True)
    assert next(statuses).state == "sealed"
    end(ledger)
    assert [status.state for status in statuses] == ["finished"]
    assert ledger.looks == 6
    assert reported.lines == [
        "cats-1: Redis does not answer; waiting until it is back",
        "cats-1: Redis is back",
    ]


def test_a_job_that_waits_for_a_worker_says_so_once(ledger: Ledger, submit_job: Submit) -> None:
    job_id = submit_job()
    reported = Reported()
    statuses = follow_job(ledger, job_id, reported)
    for _ in range(3):
        next(statuses)
    assert reported.lines == ["cats-1 waits: no worker is alive: start one with `imagemill-worker`"]
    ledger.heartbeat("w1", {"slots": 2})
    for _ in range(2):
        next(statuses)
    assert len(reported.lines) == 1


def test_a_job_whose_model_no_worker_takes_says_so(ledger: Ledger, submit_job: Submit) -> None:
    submit_job()
    ledger.heartbeat("w1", {"slots": 2, "models": '["other"]', "claims": "[]", "busy": 0})
    reported = Reported()
    statuses = follow_job(ledger, "cats-1", reported, own_worker=True)
    for _ in range(3):
        next(statuses)
    (line,) = reported.lines
    assert line.startswith("cats-1 waits: no worker that is alive takes ")
    assert "w1 takes other" in line


def test_a_job_behind_others_says_so_once_it_has_lasted(
    ledger: Ledger, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_job()
    ledger.heartbeat("w1", {"slots": 2, "models": "[]", "claims": '[["dogs-1", "0", 0]]', "busy": 1})
    reported = Reported()
    statuses = follow_job(ledger, "cats-1", reported)
    next(statuses)
    assert reported.lines == []
    monkeypatch.setattr(follow_module, "PASSING", 0.0)
    for _ in range(3):
        next(statuses)
    assert len(reported.lines) == 1
    assert "it is behind dogs-1" in reported.lines[0]


@pytest.mark.parametrize("state", ["a worker is alive", "paused", "own worker"])
def test_a_job_that_waits_for_something_else_says_nothing_of_workers(
    ledger: Ledger, state: str, submit_job: Submit
) -> None:
    job_id = submit_job()
    if state == "a worker is alive":
        ledger.heartbeat("w1", {"slots": 2})
    if state == "paused":
        ledger.control(job_id, "pause")
    reported = Reported()
    statuses = follow_job(ledger, job_id, reported, own_worker=state == "own worker")
    for _ in range(2):
        next(statuses)
    assert reported.lines == []


def test_a_job_that_nobody_submits_any_more_is_reported_once(
    ledger: Ledger, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "STALLED", 0.05)
    job_id = submit_job(seal=False)
    reported = Reported()
    statuses = follow_job(ledger, job_id, reported, own_worker=True)
    deadline = time.monotonic() + 120
    while not reported.lines and time.monotonic() < deadline:
        next(statuses)
    for _ in range(20):
        next(statuses)
    assert reported.lines == [
        f"{job_id} is not wholly submitted, and its submission has stopped: run the same "
        "`imagemill submit` again"
    ]
