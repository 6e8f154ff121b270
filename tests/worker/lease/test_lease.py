"""Whatever way work under a lease ends, the ledger learns of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jobs.errors import JobError, LeaseLost, LedgerUnavailable, OutputError
from jobs.ledger.job import Claim
from worker.engine.renderer import Stopped
from worker.lease.lease import GiveBack, Lease

CLAIM = Claim("shard", "cats-1", "incarnation", "3", "000001-aa", b"")


class Recorder:
    """A ledger and a heartbeat that write down every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.now = "held"
        self.away = False

    def release(self, claim: Claim) -> None:
        self._call("release")

    def refuse(self, claim: Claim, worker: str, reason: str) -> None:
        self._call("refuse", worker, reason)

    def state(self, claim: Claim) -> str:
        return self.now

    def _call(self, *call: str) -> None:
        self.calls.append(call)
        if self.away:
            raise LedgerUnavailable("Redis does not answer")


class Doing:
    """Work that ends as it is told to."""

    def __init__(self, end: BaseException | str) -> None:
        self._end = end

    def run(self) -> str:
        if isinstance(self._end, str):
            return self._end
        raise self._end

    def report(self, ended: str) -> dict[str, Any]:
        return {"ended": ended}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def a_lease(recorder: Recorder, stop: threading.Event | None = None) -> Lease:
    event = threading.Event() if stop is None else stop
    return Lease(CLAIM, ledger=recorder, heartbeat=recorder, worker="w1", stop=event)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("end", "ended", "calls"),
    [
        ("committed", "committed", []),
        (GiveBack("cancelled"), "cancelled", [("release",)]),
        (Stopped(), "released", [("release",)]),
        (LeaseLost("gone"), "lost", []),
        (JobError("gone"), "lost", []),
        (LedgerUnavailable("away"), "lost", []),
        (OutputError("read-only"), "refused", [("refuse", "w1", "read-only")]),
        (KeyError("x"), "refused", [("refuse", "w1", "KeyError: 'x'")]),
    ],
)
def test_each_end_is_reported_to_the_ledger(
    recorder: Recorder, end: BaseException | str, ended: str, calls: list[tuple[str, ...]]
) -> None:
    assert a_lease(recorder).carry_out(Doing(end)) == {"ended": ended}
    assert recorder.calls == calls


@pytest.mark.parametrize("end", [Stopped(), OutputError("read-only")])
def test_a_redis_that_is_away_leaves_it_to_the_lease(recorder: Recorder, end: Exception) -> None:
    recorder.away = True
    a_lease(recorder).carry_out(Doing(end))
    assert len(recorder.calls) == 1


def test_a_check_raises_what_should_end_the_work(recorder: Recorder) -> None:
    stop = threading.Event()
    lease = a_lease(recorder, stop)
    lease.check()
    recorder.now = "ending"
    with pytest.raises(GiveBack, match="cancelled"):
        lease.check()
    recorder.now = "lost"
    with pytest.raises(LeaseLost, match=f"another attempt holds shard {CLAIM.shard} now"):
        lease.check()
    recorder.now = "held"
    stop.set()
    with pytest.raises(GiveBack, match="released"):
        lease.check()


def test_what_waits_behind_something_that_is_stuck_is_given_back(recorder: Recorder) -> None:
    stuck: list[str] = []
    event = threading.Event()
    lease = Lease(
        CLAIM,
        ledger=recorder,  # type: ignore[arg-type]
        heartbeat=recorder,  # type: ignore[arg-type]
        worker="w1",
        stop=event,
        held_up=lambda: bool(stuck),
    )
    lease.check()
    stuck.append("loading another model")
    with pytest.raises(GiveBack, match="released"):
        lease.check()
