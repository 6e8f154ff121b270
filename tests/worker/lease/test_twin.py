"""Two processes of one name are told, and one that follows another is not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jobs.ledger.ledger import Ledger
from tests.waiting import WaitUntil
from worker.lease.heartbeat import Heartbeat
from worker.lease.twin import KEPT, Twin


def facts(process: str, pid: int = 7, host: str = "a") -> dict[str, str]:
    return {"process": process, "pid": str(pid), "host": host}


class Alone:
    """A process of a name, which looks each second at what the ledger holds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.twin = Twin(lambda: self.now)

    def sees(self, held: dict[str, str]) -> str:
        self.now += 1
        self.twin.look(held, facts("mine"))
        return self.twin.trouble


def test_a_process_that_follows_another_is_alone() -> None:
    alone = Alone()
    assert [alone.sees(held) for held in (facts("before", 6), facts("mine"), facts("mine"))] == [""] * 3
    # What it wrote has expired, or was lost.
    assert [alone.sees({}), alone.sees({})] == ["", ""]


def test_a_process_that_was_replaced_may_be_heard_once_more() -> None:
    alone = Alone()
    assert [alone.sees(held) for held in ({}, facts("other"), facts("mine"), facts("mine"))] == [""] * 4


@pytest.mark.parametrize(
    "other", [facts("other", 7, "b"), {"pid": "9", "slots": "2"}, facts("mine", 9, "b")], ids=str
)
def test_one_that_comes_back_is_a_twin_until_it_is_no_longer_heard(other: dict[str, str]) -> None:
    alone = Alone()
    for held in ({}, other, facts("mine"), other):
        told = alone.sees(held)
    assert f"pid {other['pid']} on {other.get('host', '?')}" in told
    assert "--name" in told
    alone.now += KEPT
    assert alone.sees(facts("mine")) == ""


def test_both_tell_of_each_other_in_their_logs_once_and_in_the_ledger(
    ledger: Ledger, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(process: str, pid: int) -> Heartbeat:
        nothing: Any = lambda _count: None  # noqa: E731
        own = facts(process, pid)
        heartbeat = Heartbeat(ledger, "gpu0@a", lease=0.3, models=(), facts=lambda: own, top_up=nothing)
        heartbeat.start()
        return heartbeat

    both = [begin("one", 1), begin("two", 2)]
    try:
        wait_until(lambda: "pid 1 on a" in caplog.text and "pid 2 on a" in caplog.text, "both tell it")
        wait_until(lambda: ledger.workers().get("gpu0@a", {}).get("twin"), "status can show it")
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 2
    finally:
        for heartbeat in both:
            heartbeat.stop()


def test_one_that_is_alone_tells_of_nobody(ledger: Ledger, wait_until: WaitUntil) -> None:
    beats: list[int] = []

    def told() -> dict[str, str]:
        beats.append(1)
        return facts("one")

    heartbeat = Heartbeat(ledger, "gpu0@a", lease=0.3, models=(), facts=told, top_up=lambda _count: None)
    heartbeat.start()
    try:
        wait_until(lambda: len(beats) > 6, "it has looked a few times")
        assert ledger.workers()["gpu0@a"]["twin"] == ""
    finally:
        heartbeat.stop()
