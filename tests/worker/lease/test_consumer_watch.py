"""A worker whose consumer takes nothing any more is seen by its heartbeat."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.ledger import redis_keys
from jobs.ledger.job import WorkerState
from jobs.ledger.ledger import Ledger
from tests.waiting import WaitUntil
from worker.lease import consumer_watch
from worker.lease.consumer_watch import GAP, LIMIT, ConsumerWatch
from worker.lease.heartbeat import Heartbeat

Submit = Callable[..., str]


def looks(watch: ConsumerWatch, now: list[float], seconds: int, *, untaken: bool = True) -> bool:
    """Looks once a second; returns what the last look says."""
    for _ in range(seconds):
        now[0] += 1
        stopped = watch.stopped(untaken)
    return stopped


def test_only_wake_ups_that_are_not_taken_for_long_tell_of_a_consumer_that_stopped() -> None:
    now = [0.0]
    watch = ConsumerWatch(lambda: now[0])
    assert not looks(watch, now, 500, untaken=False)
    assert not looks(watch, now, int(LIMIT))
    watch.woken()
    assert not looks(watch, now, int(LIMIT))
    assert not looks(watch, now, 1, untaken=False)
    assert not looks(watch, now, int(LIMIT))
    assert looks(watch, now, 1)


def test_the_time_of_an_outage_in_which_nobody_looked_does_not_count() -> None:
    now = [0.0]
    watch = ConsumerWatch(lambda: now[0])
    assert not looks(watch, now, int(LIMIT))
    now[0] += 10 * LIMIT
    assert not looks(watch, now, int(LIMIT))
    now[0] += GAP - 1
    assert looks(watch, now, 1), "slow looks are no outage"


@pytest.mark.parametrize(
    "why", ["it stopped", "it is woken", "nothing waits", "the queue is empty", "it works"]
)
def test_the_heartbeat_tells_of_a_consumer_that_stopped_and_of_no_other(
    ledger: Ledger, submit_job: Submit, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(consumer_watch, "LIMIT", 0.3)
    stops: list[int] = []
    beats: list[int] = []

    def facts() -> dict[str, str]:
        beats.append(1)
        if why == "it is woken":
            heartbeat.woken()
        return {}

    if why != "the queue is empty":
        ledger.client.rpush(redis_keys.QUEUE, "a wake-up")
    if why != "nothing waits":
        submit_job(3)
    heartbeat = Heartbeat(
        ledger,
        "w1",
        lease=0.3,
        models=(),
        facts=facts,
        top_up=lambda _count: None,
        consumer_stopped=lambda: stops.append(1),
    )
    if why == "it works":
        claim = ledger.claim("w1", WorkerState(), lease=30)
        assert claim is not None
        heartbeat.hold(claim)
    heartbeat.start()
    try:
        if why == "it stopped":
            wait_until(lambda: stops, "it is told")
        else:
            wait_until(lambda: len(beats) > 10, "it has looked for a second")
            assert stops == []
    finally:
        heartbeat.stop()
