"""What attempts left on a machine for outputs in buckets goes once no job writes there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from tests.waiting import WaitUntil
from worker.lease.old_spools import KEPT, OldSpools

Submit = Callable[..., str]
OUTPUT = "s3://bucket/cats"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def left_by_an_attempt(output: str, shard: int = 3, seconds_ago: float = KEPT + 60) -> Path:
    """The folder of an attempt that wrote so long ago."""
    attempt = Output.at(output).spool_folder(shard, "000002-5f3a9c1e")
    written = time.time() - seconds_ago
    for folder in (attempt / "images", attempt / "metadata"):
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"")
        os.utime(folder, (written, written))
    os.utime(attempt, (written, written))
    return attempt


def old_spools(ledger: Ledger, every: float = 60) -> OldSpools:
    return OldSpools(ledger, threading.Event(), every=every)


def test_what_no_job_writes_to_any_more_is_removed_with_its_empty_folders(ledger: Ledger) -> None:
    attempts = [left_by_an_attempt(OUTPUT), left_by_an_attempt("s3://bucket/dogs", 4)]
    old_spools(ledger).remove()
    assert not any(attempt.parents[1].exists() for attempt in attempts)


def test_what_a_job_may_go_on_from_stays(ledger: Ledger, submit_job: Submit) -> None:
    submit_job(output=OUTPUT)
    submit_job(output="/data/dogs", name="dogs")
    submit_job(output="s3://no place", name="forged")
    ledger.client.set("imagemill:job:odd-1", "no hash")
    ledger.client.zadd("imagemill:active", {"odd-1": 1})
    stays, goes = left_by_an_attempt(OUTPUT), left_by_an_attempt("s3://bucket/dogs")
    old_spools(ledger).remove()
    assert (stays / "images" / "a").exists()
    assert not goes.exists()


def test_what_was_written_a_moment_ago_stays_for_redis_may_have_lost_its_job(ledger: Ledger) -> None:
    fresh = left_by_an_attempt(OUTPUT, seconds_ago=1)
    old = left_by_an_attempt(OUTPUT, 4)
    old_spools(ledger).remove()
    assert (fresh / "images" / "a").exists()
    assert not old.parent.exists()


def test_a_thread_looks_again_and_again(ledger: Ledger, wait_until: WaitUntil) -> None:
    stop = threading.Event()
    OldSpools(ledger, stop, every=0.01).start()
    try:
        for shard in range(2):
            attempt = left_by_an_attempt(OUTPUT, shard)
            wait_until(lambda attempt=attempt: not attempt.exists(), "it is removed")
    finally:
        stop.set()
