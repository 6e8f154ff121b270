"""Seconds by stage: what is added adds up, over threads that live and that have ended."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from producer.metrics import collector
from worker.engine.timed_steps import timed_steps
from worker.stage_seconds import SPENT, STAGES, StageSeconds


def test_threads_add_without_losing_anything() -> None:
    spent = StageSeconds()

    def add() -> None:
        for _ in range(20_000):
            spent.add("encode", 1.0)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    read = [spent.totals()["encode"] for _ in range(100)]
    for thread in threads:
        thread.join()
    assert spent.totals() == dict.fromkeys(STAGES, 0.0) | {"encode": 80_000.0}
    assert read == sorted(read)


def test_what_raises_took_its_time_too() -> None:
    spent = StageSeconds()
    with pytest.raises(OSError, match="full"), spent.timed("write"):
        time.sleep(0.01)
        raise OSError("full")
    assert spent.of_this_thread("write") >= 0.01


def test_the_time_of_steps_is_sampling_without_what_they_decode() -> None:
    before, ticks = dict(SPENT.totals()), itertools.count(step=10.0)

    def steps() -> Iterator[int]:
        for step, decoded in enumerate((0.0, 4.0, 13.0, 0.0)):
            SPENT.add("decode", decoded)  # a GPU told late of 3 s more than the third step lasted
            yield step

    sums = []
    for _ in timed_steps(steps(), lambda: next(ticks)):
        sums.append(SPENT.totals()["sample"] - before["sample"])
    assert sums == pytest.approx([10.0, 16.0, 16.0, 23.0])
    assert SPENT.totals()["decode"] - before["decode"] == pytest.approx(17.0)


def test_steps_that_raise_pass_their_error_on() -> None:
    def steps() -> Iterator[int]:
        yield 1
        raise ValueError("bad")

    given = timed_steps(steps(), time.monotonic)
    assert next(given) == 1
    with pytest.raises(ValueError, match="bad"):
        next(given)


def test_every_stage_is_scraped() -> None:
    meaning = collector.told.STAGES.meaning
    assert all(stage in meaning for stage in STAGES)
