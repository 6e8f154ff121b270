"""The ledger is read at most once a second, and an outage is shown as such."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.overview import Overview
from jobs.ledger.redis_client import redis_client
from producer.embedded_redis import EmbeddedRedis
from producer.serve import ledger_watch
from producer.serve.ledger_watch import LedgerWatch, Snapshot
from tests.waiting import LONGEST, WaitUntil, wait_until


def reads(ledger: Ledger) -> int:
    """How often Redis was asked how its memory stands, which is done once in each reading."""
    return int(ledger.client.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"])


def test_a_hundred_visitors_and_scrapes_at_once_cost_one_reading(
    redis_server: EmbeddedRedis, ledger: Ledger
) -> None:
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    before = reads(ledger)
    with ThreadPoolExecutor(100) as visitors:
        asked = [visitors.submit(ask) for ask in (watch.now, watch.overview) for _ in range(50)]
    answers = [one.result() for one in asked]
    assert [type(one) for one in answers] == [Snapshot] * 50 + [Overview] * 50
    # The look of `reads` itself is one, and a slow machine may take more than a second.
    assert reads(ledger) - before - 1 <= 3


def test_a_ledger_that_another_visitor_lost_meanwhile_is_still_one(redis_server: EmbeddedRedis) -> None:
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    ends = time.monotonic() + 1.0
    found: set[bool] = set()

    def lose(_: LedgerView) -> None:
        raise LedgerError("Redis went away")

    def ask(losing: bool) -> None:
        while time.monotonic() < ends:
            if losing:
                with suppress(LedgerError):
                    watch.ask(lose)
            else:
                found.add(isinstance(watch.ledger, LedgerView))

    threads = [threading.Thread(target=ask, args=(losing,)) for losing in (False, True, False, True)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == {True}


def test_an_outage_is_told_with_its_beginning_and_what_was_known_stays(
    redis_server: EmbeddedRedis,
    submit_job: Callable[..., str],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    job_id = submit_job()
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    before = watch.now()
    assert [job.job_id for job in before.jobs] == [job_id] and before.away is None
    redis_server.stop()
    first, second = watch.now(), watch.now()
    assert first.away is not None and second.away is not None
    assert first.away.since == second.away.since >= before.read
    assert "Redis does not answer" in first.away.reason
    assert first.jobs == before.jobs
    with pytest.raises(LedgerUnavailable, match="Redis does not answer"):
        watch.overview()  # figures are of now, or there are none
    redis_server.start()
    wait_until(lambda: watch.now().away is None, "the ledger is read again")
    assert [job.job_id for job in watch.overview().jobs] == [job_id]


def test_a_redis_that_hangs_keeps_one_visitor_waiting_and_the_others_see_what_is_known(
    redis_server: EmbeddedRedis,
    submit_job: Callable[..., str],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    monkeypatch.setattr(ledger_watch, "STALE", LONGEST)
    submit_job()
    watch = LedgerWatch(lambda: LedgerView(redis_server.url))
    known, seen = watch.now(), []
    visitors = [threading.Thread(target=lambda: seen.append(watch.now())) for _ in range(8)]
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        for visitor in visitors:
            visitor.start()
        wait_until(lambda: sum(visitor.is_alive() for visitor in visitors) == 1, "one is left")
        assert seen == [known] * 7
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    for visitor in visitors:
        visitor.join()


def test_after_a_time_without_visitors_all_wait_for_the_next_reading(
    redis_server: EmbeddedRedis, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    watch = LedgerWatch(lambda: LedgerView(redis_server.url, timeout=LONGEST))
    known, seen = watch.now(), list[ledger_watch.Snapshot]()
    monkeypatch.setattr(ledger_watch, "STALE", 0.0)
    visitors = [threading.Thread(target=lambda: seen.append(watch.now())) for _ in range(8)]
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        for visitor in visitors:
            visitor.start()
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    for visitor in visitors:
        visitor.join()
    assert all(one.read > known.read for one in seen)


def test_a_replica_and_a_user_who_may_only_read_can_be_looked_at(
    redis_server: EmbeddedRedis, ledger: Ledger, submit_job: Callable[..., str], tmp_path: Path
) -> None:
    """A job whose time is over is on no page; no list of jobs is changed for that."""
    gone, there = submit_job(), submit_job(name="dogs", output="/data/dogs")
    ledger.client.delete(redis_keys.job(gone))
    ledger.client.zrem(redis_keys.ACTIVE, gone)
    reads = ["~imagemill:*", "+@read", "+@connection", "+script|load", "+evalsha", "+time", "+info"]
    ledger.client.execute_command("ACL", "SETUSER", "looks", "on", ">word", *reads)
    user = f"redis://looks:word@{redis_server.url.partition('@')[2]}"
    with EmbeddedRedis(tmp_path / "replica") as replica:
        follow(replica, redis_server)
        for url in (user, replica.url):
            now = LedgerWatch(partial(LedgerView, url)).now()
            assert ([job.job_id for job in now.jobs], now.away) == ([there], None)
    ledger.client.execute_command("ACL", "DELUSER", "looks")
    assert ledger.client.zcard(redis_keys.JOBS) == 2


def follow(replica: EmbeddedRedis, primary: EmbeddedRedis) -> None:
    """Makes one Redis the replica of another; returns when it has its keys."""
    address = urlsplit(primary.url)
    with redis_client(replica.url) as client:
        client.config_set("masterauth", address.password)
        client.replicaof("127.0.0.1", address.port)
        wait_until(lambda: client.exists(redis_keys.JOBS), "the replica has the keys")


def test_a_redis_that_comes_later_is_found(
    redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of an `imagemill run` that begins after the server."""
    monkeypatch.setattr(ledger_watch, "OLDEST", 0.0)
    urls: list[str] = []

    def connect() -> LedgerView:
        if not urls:
            raise LedgerError("no Redis to connect to")
        return LedgerView(urls[0])

    watch = LedgerWatch(connect)
    away = watch.now().away
    assert away is not None and away.reason == "no Redis to connect to"
    urls.append(redis_server.url)
    assert watch.now().away is None
