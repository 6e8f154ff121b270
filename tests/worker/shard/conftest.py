"""A bench for a shard, and one whose job is written as tars."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.ledger.job import JobSpec
from producer.embedded_redis import EmbeddedRedis
from tests.worker.shard.bench import (
    Bench,
    Wait,
)


@pytest.fixture
def bench(
    redis_server: EmbeddedRedis, tmp_path: Path, job_spec: Callable[..., JobSpec], wait_until: Wait
) -> Iterator[Bench]:
    bench = Bench(redis_server.url, tmp_path, job_spec, wait_until)
    yield bench
    bench.close()


@pytest.fixture
def tar_bench(bench: Bench) -> Bench:
    """A bench whose job has `layout: webdataset`."""
    bench.spec = dataclasses.replace(bench.spec, layout="webdataset")
    return bench
