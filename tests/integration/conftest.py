"""Real workers, started as a user starts them, against a Redis of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from jobs.ledger.job import JobStatus
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm


@pytest.fixture
def farm(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Farm]:
    """A farm without workers yet."""
    (tmp_path / "runtime").mkdir(exist_ok=True)
    farm = Farm(tmp_path, redis_server)
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that all tests of a module share, without workers yet."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "runtime").mkdir()
    with EmbeddedRedis(folder=folder / "redis") as server:
        farm = Farm(folder, server)
        yield farm
        farm.stop()


@pytest.fixture
def finished(farm: Farm, wait_until: Callable[..., None]) -> Callable[..., JobStatus]:
    """Waits until a job is finished; returns its status."""

    def wait(job_id: str, seconds: float = 60.0) -> JobStatus:
        logs: Mapping[str, str] = {name: farm.log(name)[-2000:] for name in farm.workers}
        wait_until(lambda: farm.status(job_id).state == "finished", f"{job_id} is finished; {logs}", seconds)
        return farm.status(job_id)

    return wait
