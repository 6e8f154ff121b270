"""An engine that no longer moves is seen, told, and ended when that lasts."""

from __future__ import annotations

import logging

import pytest

from worker.engine.pulse import Pulse
from worker.engine.renderer import Pipeline
from worker.engine.stall_watch import StallWatch

MODEL = Pipeline("/models/m", "r", "auto")


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch with a clock of its own; `ends` counts the ends of the process, `wanted` is what it asks."""

    def __init__(self, limit: float = 1800.0) -> None:
        self.clock, self.ends, self.wanted = Clock(), 0, True
        self.pulse = Pulse(self.clock)
        self.watch = StallWatch(self.pulse, limit, lambda _: self.wanted, end=self._end, clock=self.clock)

    def _end(self) -> None:
        self.ends += 1

    def after(self, seconds: float) -> int:
        """Looks once a second for so long; returns the ends up to then."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.watch.look()
        return self.ends


def test_what_does_not_move_is_told_after_a_minute_and_ends_the_process_after_the_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    with watched.pulse.doing("loading", MODEL):
        watched.after(59)
        assert (watched.watch.notice, caplog.text) == ("", "")
        watched.after(1)
        assert watched.watch.notice.startswith("loading /models/m since ")
        assert watched.watch.notice.endswith(" UTC, without progress for 60 s")
        assert watched.after(1739) == 0
        said = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert [record.getMessage().count("claims nothing meanwhile") for record in said] == [1, 1, 1]
        assert watched.after(1) == 1
    assert "over the limit (--stall-limit)" in caplog.text


def test_signs_of_progress_begin_the_time_again_and_the_end_of_a_stall_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    with watched.pulse.doing("rendering", MODEL):
        for _ in range(60):
            watched.after(50)
            watched.pulse.beat()
        assert caplog.text == ""
        watched.after(70)
        watched.pulse.beat()
        watched.after(1)
    assert [record.getMessage() for record in caplog.records][1:] == ["it moves again"]
    assert watched.ends == 0


def test_who_does_nothing_or_waits_for_redis_is_not_stuck() -> None:
    watched = Watched()
    watched.after(4000)
    with watched.pulse.doing("rendering", MODEL):
        with watched.pulse.resting():
            assert watched.after(4000) == 0
        assert watched.watch.stall is None
        with watched.pulse.doing("loading", MODEL):
            watched.after(70)
            stall = watched.watch.stall
            assert stall is not None and (stall.doing, stall.lasts) == ("loading", 70)
        assert watched.watch.stall is None


def test_what_nobody_wants_any_more_ends_sooner_but_not_at_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with watched.pulse.doing("loading", MODEL):
        watched.after(100)
        watched.wanted = False
        assert watched.after(10) == 0
        watched.wanted = True
        watched.after(5)
        watched.wanted = False
        assert watched.after(10) == 0
        assert watched.after(1) == 1
    assert "no job wants it any more" in caplog.text


def test_what_nobody_wants_but_moves_goes_on() -> None:
    watched = Watched()
    watched.wanted = False
    with watched.pulse.doing("loading", MODEL):
        for _ in range(20):
            watched.after(50)
            watched.pulse.beat()
    assert watched.ends == 0


def test_a_short_limit_shortens_the_notice_too() -> None:
    watched = Watched(8.0)
    with watched.pulse.doing("loading", MODEL):
        watched.after(3)
        assert watched.watch.notice == ""
        watched.after(1)
        assert watched.watch.notice
        assert watched.after(3) == 0
        assert watched.after(1) == 1
