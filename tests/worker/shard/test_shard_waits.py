"""A full disk and a Redis that is away make a shard wait, and cost no image."""

from __future__ import annotations

import errno
import os
import pkgutil
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobs.ledger.job import Claim, SlotsKey
from jobs.ledger.ledger import Ledger
from producer.doctor.checkup import check_output
from producer.embedded_redis import EmbeddedRedis
from tests.worker.shard.bench import (
    Bench,
    FlakyLedger,
    Wait,
    failing,
    lines,
)
from worker.shard import buckets
from worker.shard.store import ShardStore


def test_stopped_while_the_disk_is_full_it_gives_the_shard_back_at_once(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "save", failing(errno.ENOSPC))
    bench.submit(lines(8))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.stop_engine()
    assert running.report().ended == "released"
    status = bench.status()
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


def test_a_job_cancelled_while_the_disk_is_full_leaves_the_writers_free(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "save", failing(errno.ENOSPC))
    bench.submit(lines(12))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.ledger.control(bench.job_id, "cancel")
    assert running.report().ended == "cancelled"
    wait_until(lambda: not bench.engine.in_flight(), "no writer waits for what nobody wants")
    status = bench.status()
    assert (status.state, status.shards_leased, status.failed) == ("finishing", 0, 0)


def test_redis_that_goes_away_in_the_middle_of_a_shard_costs_nothing(bench: Bench) -> None:
    bench.submit(lines(10, p3={"prompt": "raise"}))
    flaky = FlakyLedger(bench.url)
    report = bench.run(ledger=flaky)
    assert (report.ended, report.rendered, report.failed) == ("committed", 9, 1)
    assert min(flaky.raised.values()) > flaky.outages
    bench.check_committed(9)
    status = bench.status()
    assert (status.state, status.done, status.failed, status.left) == ("finishing", 9, 1, 0)


def test_a_redis_that_stands_still_for_a_while_costs_nothing(
    bench: Bench, redis_server: EmbeddedRedis, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit(lines(8))
    running = bench.begin_until(4, ledger=Ledger(bench.url, timeout=0.1))
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        bench.painter.allowed.release(10)
        wait_until(lambda: bench.saved() == 8, "the rest is on disk without Redis")
        wait_until(lambda: "Redis does not answer" in caplog.text, "the run has met the outage")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert running.report().ended == "committed"
    bench.check_committed(8)
    assert bench.status().done == 8


def test_a_worker_that_stops_while_redis_is_away_leaves_its_shard_to_the_lease(
    bench: Bench, wait_until: Wait
) -> None:
    bench.submit(lines(4))

    class Gone(FlakyLedger):
        outages = 1_000_000

        def first_shard(self, job_id: str) -> int:
            return Ledger.first_shard(self, job_id)

        def settle_slots(self, claim: Claim, size: SlotsKey, **how: Any) -> int:
            return Ledger.settle_slots(self, claim, size, **how)

        def release(self, claim: Claim) -> None:
            self._maybe_away("release")

    gone = Gone(bench.url)
    running = bench.begin(ledger=gone)
    wait_until(lambda: gone.raised.get("record", 0) > 2, "the run waits for Redis")
    bench.stop.set()
    assert running.report().ended == "released"
    assert bench.status().shards_leased == 1
    assert bench.saved() == 4


def test_a_disk_that_is_full_for_a_while_fails_no_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    lock = threading.Lock()

    def full_at_first(method: Callable[..., Any], times: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with lock:
                if refused.count(method.__name__) < times:
                    refused.append(method.__name__)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return method(*arguments, **named)

        return call

    for name in ("adopt", "save", "commit"):
        monkeypatch.setattr(ShardStore, name, full_at_first(getattr(ShardStore, name), 2))
    bench.submit(lines(6))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 6, 0)
    assert sorted(refused) == ["adopt"] * 2 + ["commit"] * 2 + ["save"] * 2
    bench.check_committed(6)
    assert bench.status().failed == 0
    assert bench.space.notice == ""


def test_stopped_while_the_disk_is_too_full_to_commit_it_gives_the_shard_back(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "commit", failing(errno.EDQUOT))
    bench.submit(lines(3))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the commit waits for space")
    bench.stop.set()
    assert running.report().ended == "released"
    status = bench.status()
    assert (status.shards_ready, status.shards_leased, status.done) == (1, 0, 3)
    assert bench.saved() == 3


@pytest.mark.parametrize("step", ["TarWriter.add", "TarWriter.close", "write_atomically"])
def test_a_tar_waits_for_space_and_leaves_nothing_half(
    tar_bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tar_bench.submit(lines(5, p2={"prompt": "raise"}))
    left = iter(range(3))
    name = f"jobs.output.webdataset.{step}"
    write = pkgutil.resolve_name(name)

    def full(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is None:
            return write(*arguments, **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(name, full)
    assert tar_bench.run().ended == "committed"
    tar_bench.check_committed(4)
    assert list(tar_bench.output.spool.iterdir()) == []
    assert check_output(tar_bench.output).problems == []


def test_the_slots_of_an_output_wait_for_space_like_its_pictures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    keep, full = buckets.keep_slots, threading.Event()
    full.set()
    monkeypatch.setattr(
        buckets, "keep_slots", lambda *given: failing(errno.ENOSPC)() if full.is_set() else keep(*given)
    )
    bench.submit(lines(2))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the run waits for space")
    full.clear()
    assert running.report().ended == "committed"
    assert (bench.output.private / "rows.json").is_file()
