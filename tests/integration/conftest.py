"""Real workers, started as a user starts them, against a Redis of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.ledger.job import JobStatus
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm
from tests.guarded_redis import guarded

__all__ = ["guarded"]


@pytest.fixture
def farm(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Farm]:
    """A farm without workers yet."""
    farm = Farm(tmp_path, redis_server)
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm that all tests of a module share, without workers yet."""
    folder = tmp_path_factory.mktemp("farm")
    with EmbeddedRedis(folder=folder / "redis") as server:
        farm = Farm(folder, server)
        yield farm
        farm.stop()


@pytest.fixture
def finished(farm: Farm) -> Callable[[str], JobStatus]:
    """Waits until a job is finished; returns its status."""
    return farm.finished
