"""Idle connections that are cut, or that nobody forwards any more, cost a worker seconds and no work."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from jobs.ledger.broker import celery_app
from jobs.ledger.redis_keys import QUEUE
from tests.farm import Farm
from tests.half_open import HalfOpenWay
from tests.waiting import LONGEST, wait_until

CLAIMED = 60.0
"""Seconds until an idle worker has claimed a job's shard, whatever became of its connections."""


@pytest.fixture
def way(farm: Farm) -> Iterator[HalfOpenWay]:
    """How the worker that it starts reaches Redis."""
    with HalfOpenWay(farm.server.url) as way:
        farm.start_worker("w1", REDIS_URL=way.url)
        farm.finished(farm.submit(2, name="first", output=str(farm.folder / "first")))
        yield way
        farm.stop()


def seconds_until_claimed(farm: Farm, name: str) -> float:
    """Submits a job past the broken way, and waits until it is claimed."""
    began = time.monotonic()
    job_id = farm.submit(2, name=name, output=str(farm.folder / name))
    wait_until(lambda: farm.status(job_id).started, "it is claimed", 2 * LONGEST)
    taken = time.monotonic() - began
    farm.finished(job_id)
    return taken


def cut_by_redis(farm: Farm) -> int:
    """As `CLIENT KILL` does; those of the test come again by themselves."""
    return int(farm.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))


def test_idle_connections_that_are_cut_or_forgotten_delay_a_claim_by_a_minute_at_most(
    farm: Farm, way: HalfOpenWay
) -> None:
    assert cut_by_redis(farm) > 0
    taken = {"killed by Redis": seconds_until_claimed(farm, "killed")}
    assert way.cut() > 0
    taken["cut"] = seconds_until_claimed(farm, "cut")
    assert way.forget() > 0
    taken["forgotten"] = seconds_until_claimed(farm, "forgotten")
    assert max(taken.values()) <= CLAIMED, taken


@pytest.mark.soak
def test_a_hundred_times(farm: Farm, way: HalfOpenWay) -> None:
    chance = random.Random(17)
    for number in range(100):
        time.sleep(chance.random() * 3)
        how = chance.choice(("cut", "forget", "kill"))
        assert (cut_by_redis(farm) if how == "kill" else getattr(way, how)()) > 0
        taken = seconds_until_claimed(farm, f"job{number}")
        assert taken <= CLAIMED, (number, how)


@pytest.mark.soak
def test_a_consumer_that_stopped_is_started_again(farm: Farm, way: HalfOpenWay) -> None:
    """Celery can be told to consume no more, by which it looks as if it had lost its queue."""
    app = celery_app(farm.server.url)
    app.control.cancel_consumer(QUEUE, destination=["cpu0@w1"], reply=True)
    first = farm.celery_pid("w1")
    assert seconds_until_claimed(farm, "later") <= 2 * CLAIMED
    assert farm.celery_pid("w1") != first
    assert "Celery's consumer takes no wake-up" in farm.log("w1")
