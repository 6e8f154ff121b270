"""Workers for tests of the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.ledger.job import JobSpec
from producer.embedded_redis import EmbeddedRedis
from tests.worker.runtime.hired import Worker


@pytest.fixture
def hire(
    redis_server: EmbeddedRedis, tmp_path: Path, job_spec: Callable[..., JobSpec]
) -> Iterator[Callable[..., Worker]]:
    """Starts a worker; it is stopped at the end."""
    workers: list[Worker] = []

    def start(**settings: object) -> Worker:
        workers.append(Worker(redis_server.url, tmp_path, job_spec, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.runtime.stop()
        worker.runtime.close()
