"""An error that comes every second is one line, then one a minute later, then one in ten minutes."""

from __future__ import annotations

from jobs.errors import LedgerError, LedgerUnavailable
from worker.lease.repeated import Repeated


class Clock:
    """Seconds, set by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_error_of_every_second_is_said_now_and_then_with_its_count() -> None:
    clock = Clock()
    repeated = Repeated(clock)
    said = []
    for second in range(2000):
        clock.now = 1000.0 + second
        if (count := repeated.to_say("leases", LedgerError("refused"))) is not None:
            said.append((second, count))
    assert said == [
        (0, ""),
        (60, " (61 times in 60 s)"),
        (660, " (661 times in 660 s)"),
        (1260, " (1,261 times in 1,260 s)"),
        (1860, " (1,861 times in 1,860 s)"),
    ]


def test_another_duty_another_kind_of_error_and_one_after_a_success_are_said_at_once() -> None:
    repeated = Repeated(Clock())
    refused, away = LedgerError("refused"), LedgerUnavailable("away")
    assert repeated.to_say("leases", refused) == ""
    assert repeated.to_say("leases", refused) is None
    assert repeated.to_say("wake-ups", refused) == ""
    assert repeated.to_say("leases", away) == ""
    assert repeated.to_say("leases", away) is None
    repeated.over("leases")
    assert repeated.to_say("leases", away) == ""
    assert repeated.to_say("wake-ups", refused) is None
