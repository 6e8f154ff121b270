"""What every test may ask for: a Redis of its own, a job in it, and a deadline instead of a sleep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.ledger.job import JobSpec, JobStatus
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.rendered_output import rendered

__all__ = ["rendered"]

# One thread a forward, set before torch is loaded: the tiny models gain nothing from a second, whose spinning
# takes the core from the servers and workers beside the test.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A real Redis on a free loopback port; a machine without one fails the test."""
    with EmbeddedRedis(folder=tmp_path / "redis") as server:
        yield server


@pytest.fixture
def ledger(redis_server: EmbeddedRedis) -> Ledger:
    """The ledger in that Redis."""
    return Ledger(redis_server.url)


@pytest.fixture
def job_spec() -> Callable[..., JobSpec]:
    """Makes a job's spec; a test names the fields that matter to it."""
    spec = JobSpec(
        manifest={"name": "cats"},
        base={},
        name="cats",
        output="/data/cats",
        model="instant",
        revision="instant-1",
        precision="auto",
        column_names=[],
        shard_size=4,
        priority=5,
        max_failures=None,
        retention=3600,
    )
    return lambda **changes: replace(spec, **changes)


@pytest.fixture
def submit_job(ledger: Ledger, job_spec: Callable[..., JobSpec]) -> Callable[..., str]:
    """Stores a new job of so many shards of 4 images, `blob 0`, `blob 1`, …; returns its id."""

    def submit(shards: int = 1, *, seal: bool = True, **changes: object) -> str:
        job_id, created = ledger.create(job_spec(**changes), "digest", 1)
        assert created
        blobs = [(number, 4, b"blob %d" % number) for number in range(shards)]
        ledger.add(job_id, ledger.incarnation(job_id), 0, 4 * shards, blobs, seal=seal)
        return job_id

    return submit


@pytest.fixture
def job_status() -> Callable[..., JobStatus]:
    """Makes the status of a job that is being rendered; a test names the fields that matter to it."""
    status = JobStatus(
        job_id="cats-1",
        state="sealed",
        outcome="",
        ending="",
        reason="",
        paused=False,
        priority=5,
        run=1,
        total=100,
        left=60,
        done=38,
        failed=2,
        flagged=0,
        shards=10,
        shards_ready=4,
        shards_leased=2,
        created=1000.0,
        started=1001.0,
        ended=0.0,
        finished=0.0,
        images_per_second=2.0,
        output="/data/cats",
        model="org/sd",
        held=7,
        refusals={"gpu1@b": "m: not there"},
        workers=["gpu0@a"],
        notices={"gpu0@a": "no space left at /data"},
        broken={},
    )
    return lambda **changes: replace(status, **changes)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Polls a condition until it holds; fails the test, with what was awaited, at the deadline."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s in vain: {what}")
            time.sleep(0.05)

    return wait


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own settings and connection files reach no test."""
    for variable in list(os.environ):
        if variable.startswith("IMAGEMILL_"):
            monkeypatch.delenv(variable)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("IMAGEMILL_RUNTIME_DIR", str(runtime))
