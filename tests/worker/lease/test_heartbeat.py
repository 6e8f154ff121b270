"""The heartbeat renews what is held, knows what became of it, and does the ledger's housekeeping."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import redis

from jobs.errors import LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim, LeaseState, WorkerState
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.waiting import LONGEST
from worker.lease.heartbeat import Heartbeat

Submit = Callable[..., str]
Wait = Callable[..., None]
LEASE = 0.6


@pytest.fixture
def begin() -> Iterator[Callable[..., Heartbeat]]:
    """Starts a heartbeat; it is stopped at the end."""
    keepers: list[Heartbeat] = []

    def start(
        ledger: Ledger, top_up: Callable[[int], None] = lambda _count: None, lease: float = LEASE
    ) -> Heartbeat:
        keepers.append(
            Heartbeat(
                ledger,
                "w1",
                lease=lease,
                models=(),
                facts=lambda: {"slots": 2, "notice": "no space left"},
                top_up=top_up,
            )
        )
        keepers[-1].start()
        return keepers[-1]

    yield start
    for heartbeat in keepers:
        heartbeat.stop()


Begin = Callable[..., Heartbeat]


def claim(ledger: Ledger, worker: str = "w1", lease: float = LEASE) -> Claim:
    found = ledger.claim(worker, WorkerState(), lease=lease)
    assert found is not None
    return found


def test_what_is_held_outlives_its_lease_and_what_is_dropped_does_not(
    ledger: Ledger, begin: Begin, wait_until: Wait, redis_server: EmbeddedRedis, submit_job: Submit
) -> None:
    job_id = submit_job()
    held = claim(ledger)
    heartbeat = begin(ledger)
    heartbeat.hold(held)
    client = redis.Redis.from_url(redis_server.url)

    def expiry() -> float:
        score = client.zscore(redis_keys.LEASES, f"{job_id}/{held.shard}")
        return 0.0 if score is None else score / 1000

    first = expiry()
    wait_until(lambda: expiry() > first + 3 * LEASE, "it was renewed over three leases")
    assert heartbeat.state(held) == "held"
    heartbeat.drop(held)
    wait_until(lambda: ledger.status(job_id).shards_ready == 1, "it runs out and the heartbeat puts it back")
    assert heartbeat.state(held) == "lost"


def test_a_claim_of_another_attempt_is_reported_as_lost(
    ledger: Ledger, begin: Begin, wait_until: Wait, submit_job: Submit
) -> None:
    submit_job()
    held = claim(ledger)
    heartbeat = begin(ledger)
    heartbeat.hold(held)
    ledger.release(held)
    taken = claim(ledger, "w2", lease=30)
    wait_until(lambda: heartbeat.state(held) == "lost", "the renewal says so")
    assert ledger.renew({taken: []}, 30) == ["held"]


def test_a_claim_of_a_cancelled_job_is_reported_as_ending(
    ledger: Ledger, begin: Begin, wait_until: Wait, submit_job: Submit
) -> None:
    job_id = submit_job()
    held = claim(ledger)
    heartbeat = begin(ledger)
    heartbeat.hold(held)
    ledger.control(job_id, "cancel")
    wait_until(lambda: heartbeat.state(held) == "ending", "the renewal says so")


def test_others_dead_leases_are_reaped(
    ledger: Ledger, begin: Begin, wait_until: Wait, submit_job: Submit
) -> None:
    job_id = submit_job()
    claim(ledger, "dead", lease=0.1)
    begin(ledger)
    wait_until(lambda: ledger.status(job_id).shards_ready == 1, "the dead worker's shard waits again")


def test_the_heart_beats_with_the_workers_facts_until_it_stops(
    ledger: Ledger, begin: Begin, wait_until: Wait
) -> None:
    heartbeat = begin(ledger)
    wait_until(ledger.workers, "the worker is listed")
    assert ledger.workers() == {"w1": {"slots": "2", "notice": "no space left", "twin": ""}}
    heartbeat.stop()
    assert ledger.workers() == {}


def test_a_keeper_that_never_started_can_be_stopped(ledger: Ledger) -> None:
    Heartbeat(ledger, "w1", lease=1, models=(), facts=dict, top_up=lambda _count: None).stop()


def test_it_tops_up_when_claims_wait_and_no_wake_up_does(
    ledger: Ledger, begin: Begin, wait_until: Wait, redis_server: EmbeddedRedis, submit_job: Submit
) -> None:
    topped: list[int] = []
    client = redis.Redis.from_url(redis_server.url)
    client.rpush(redis_keys.QUEUE, "a wake-up")
    submit_job(3)
    begin(ledger, topped.append)
    wait_until(ledger.workers, "it has looked once")
    beats: list[int] = []
    wait_until(lambda: beats.append(1) or len(beats) > 8, "it looks again")
    assert topped == []
    client.delete(redis_keys.QUEUE)
    wait_until(lambda: topped, "nobody would wake up otherwise")
    assert set(topped) == {3}


def test_a_top_up_that_hangs_holds_no_renewal_up_and_is_not_sent_twice(
    ledger: Ledger, begin: Begin, wait_until: Wait, submit_job: Submit
) -> None:
    job_id, go_on, sent = submit_job(3), threading.Event(), list[int]()

    def hang(waiting: int) -> None:
        sent.append(waiting)
        go_on.wait(LONGEST)

    try:
        heartbeat = begin(ledger, hang)
        held = claim(ledger, lease=LEASE)
        heartbeat.hold(held)
        wait_until(lambda: sent, "it tops up")
        until = time.monotonic() + 3 * LEASE
        wait_until(lambda: time.monotonic() > until, "three leases pass")
        assert ledger.reap() == 0
        assert heartbeat.state(held) == "held"
        assert ledger.status(job_id).shards_leased == 1
        assert len(sent) == 1
    finally:
        go_on.set()


def test_it_tops_up_nothing_while_there_is_nothing_to_claim(
    ledger: Ledger, begin: Begin, wait_until: Wait
) -> None:
    topped: list[int] = []
    begin(ledger, topped.append)
    wait_until(ledger.workers, "it has looked")
    assert topped == []


def test_what_enters_the_slots_is_reported_at_once_and_not_at_the_next_round(
    redis_server: EmbeddedRedis,
    begin: Begin,
    wait_until: Wait,
    submit_job: Submit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The next round comes after every wait below.
    monkeypatch.setattr("worker.lease.heartbeat.ROUND", 2 * LONGEST)
    ledger = Counting(redis_server.url)
    job_id = submit_job()
    held = claim(ledger, lease=30)
    heartbeat = begin(ledger, lease=6 * LONGEST)
    wait_until(lambda: ledger.houses == 1, "the first round is done")
    slots: list[int] = []
    heartbeat.hold(held)
    heartbeat.list_in_flight(held, lambda: slots)
    for expected in ([3], [3, 1], []):
        slots[:] = expected
        heartbeat.images_entered()
        wait_until(
            lambda expected=expected: slots_of(ledger, job_id) == expected,
            f"{expected} is reported",
            LONGEST / 4,
        )
    assert ledger.houses == 1


def slots_of(ledger: Ledger, job_id: str) -> list[int]:
    lease = json.loads(ledger.client.hget(redis_keys.job(job_id, "leased"), "0"))
    return list(lease.get("rows", []))


class Counting(Ledger):
    """Counts its reaps: one a round."""

    houses = 0

    def reap(self) -> int:
        self.houses += 1
        return super().reap()


class Troubled(Ledger):
    """Every renewal raises the next of `errors`, while there are some."""

    errors: Sequence[Exception] = ()
    renewals = 0

    def renew(self, claims: Mapping[Claim, Sequence[int]], lease: float) -> list[LeaseState]:
        self.renewals += 1
        if self.renewals <= len(self.errors):
            raise self.errors[self.renewals - 1]
        return super().renew(claims, lease)


def test_it_outlives_an_outage_and_even_a_defect_and_says_each_once(
    redis_server: EmbeddedRedis,
    begin: Begin,
    wait_until: Wait,
    caplog: pytest.LogCaptureFixture,
    submit_job: Submit,
) -> None:
    ledger = Troubled(redis_server.url)
    away = LedgerUnavailable("Redis does not answer")
    ledger.errors = (away, away, away, ZeroDivisionError("a defect"))
    job_id = submit_job()
    held = claim(ledger, lease=30)
    heartbeat = begin(ledger)
    heartbeat.hold(held)
    wait_until(ledger.workers, "it goes on after five rounds")
    assert heartbeat.state(held) == "held"
    assert ledger.status(job_id).shards_leased == 1
    assert caplog.text.count("Redis does not answer; trying again") == 1
    assert caplog.text.count("ZeroDivisionError: a defect") == 1


def test_a_round_that_fails_each_time_is_logged_once_though_renewals_between_succeed(
    redis_server: EmbeddedRedis, begin: Begin, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Counting):
        renewals = 0

        def reap(self) -> int:
            super().reap()
            raise ZeroDivisionError("a defect")

        def renew(self, claims: Mapping[Claim, Sequence[int]], lease: float) -> list[LeaseState]:
            self.renewals += 1
            return super().renew(claims, lease)

    ledger = Broken(redis_server.url)
    heartbeat = begin(ledger)

    def renewed_between() -> bool:
        heartbeat.images_entered()
        return ledger.houses > 4 and ledger.renewals > ledger.houses + 3

    wait_until(renewed_between, "it has renewed between rounds")
    assert caplog.text.count("ZeroDivisionError: a defect") == 1


def test_a_redis_that_refuses_the_password_is_logged_once_for_each_duty_and_not_each_second(
    redis_server: EmbeddedRedis, begin: Begin, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    place = redis_server.url.rpartition("@")[2]
    rounds: list[None] = []

    class Counted(Ledger):
        def reap(self) -> int:
            raise AssertionError("it is refused before")

        def renew(self, claims: Mapping[Claim, Sequence[int]], lease: float) -> list[LeaseState]:
            rounds.append(None)
            self.queued()
            return super().renew(claims, lease)

    begin(Counted(f"redis://:wrong@{place}"))
    wait_until(lambda: len(rounds) > 5, "it goes on")
    assert caplog.text.count("Redis refuses the password") == 1
    assert "Traceback" not in caplog.text
