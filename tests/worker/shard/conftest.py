"""A bench for a shard, one whose job is written as tars, and an output in either layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.ledger.job import JobSpec
from jobs.output.output import Output
from producer.embedded_redis import EmbeddedRedis
from tests.worker.shard import stores
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


@pytest.fixture(params=["files", "webdataset"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of stores holds in both layouts, where it does not name one."""
    monkeypatch.setattr(stores, "LAYOUT", request.param)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """An output folder that is ready for shards."""
    output = Output(tmp_path / "out")
    output.prepare()
    return output
