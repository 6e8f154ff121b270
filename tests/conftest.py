"""What every test may ask for: a Redis of its own, a job in it, and a deadline instead of a sleep."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.failpoints import Hook, arm
from jobs.ledger.job import Addition, JobSpec, JobStatus, NewShard
from jobs.ledger.ledger import Ledger
from jobs.request import ImageRequest
from producer.embedded_redis import EmbeddedRedis
from tests.first_files import FIRST
from tests.lent_redis import LentRedis
from tests.object_store.lent import _lent_store, bucket, object_store
from tests.rendered_output import rendered
from tests.trouble import TROUBLED
from tests.waiting import WaitUntil, wait_until

__all__ = ["_lent_store", "bucket", "object_store", "rendered"]

# One thread a forward, set before torch is loaded: the tiny models gain nothing from a second, whose spinning
# takes the core from the servers and workers beside the test.
os.environ.setdefault("OMP_NUM_THREADS", "1")


_OPTIONAL = ("promtool", "prometheus", "nginx", "kubectl")
"""Programs with which some tests look closer; each of these tests names another that looks without."""


def pytest_report_header() -> str:
    """Which of the optional programs are here: without one, a test that would use it passes all the same."""
    there = [name for name in _OPTIONAL if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
    missing = [name for name in _OPTIONAL if name not in there]
    return f"optional programs: {', '.join(there) or 'none'}; not here: {', '.join(missing) or 'none'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the long files."""
    places = {name: place for place, name in enumerate(FIRST)}
    tests, last = Path(__file__).parent, len(places)

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(tests)
        return places.get(file.as_posix(), places.get(file.parts[0], last))

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Keeps the garbage collector away from what stays: modules, and thousands of tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def _lent_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LentRedis]:
    """The server that the tests of this process use one after the other."""
    lent = LentRedis(tmp_path_factory.mktemp("redis"))
    yield lent
    lent.stop()


@pytest.fixture
def redis_server(_lent_redis: LentRedis) -> EmbeddedRedis:
    """A real Redis, empty, with a password of this test's; the test may break it.

    A machine without a Redis fails the test.
    """
    return _lent_redis.lend()


@pytest.fixture
def troubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the workers that the test starts a model that has trouble with some prompts (`tests.trouble`)."""
    for name, value in TROUBLED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ledger(redis_server: EmbeddedRedis) -> Ledger:
    """The ledger in that Redis."""
    return Ledger(redis_server.url)


BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64)


@pytest.fixture
def job_spec() -> Callable[..., JobSpec]:
    """Makes a job's spec; a test names the fields that matter to it."""
    spec = JobSpec(
        manifest={"name": "cats"},
        base=BASE.to_mapping(),
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
        blobs = [NewShard(number, 4, b"blob %d" % number) for number in range(shards)]
        ledger.add(
            job_id,
            ledger.incarnation(job_id),
            Addition(cursor=0, new_cursor=4 * shards, seal=seal, shards=blobs),
        )
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
        loading={},
        broken={},
    )
    return lambda **changes: replace(status, **changes)


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> WaitUntil:
    """`tests.waiting.wait_until`."""
    return wait_until


@pytest.fixture
def arm_failpoints() -> Iterator[Callable[[Hook], None]]:
    """Arms the failpoints of this process until the test ends."""
    before: list[Hook] = []
    yield lambda hook: before.append(arm(hook))
    if before:
        arm(before[0])


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own settings, credentials and connection files reach no test."""
    for variable in list(os.environ):
        if variable.startswith(("IMAGEMILL_", "AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(variable)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("IMAGEMILL_RUNTIME_DIR", str(runtime))
