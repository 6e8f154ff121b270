"""A shard on its way into a bucket."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jobs.entry import Entry
from jobs.output.output import Output
from jobs.request import ImageRequest
from worker.engine.renderer import RenderedBy
from worker.shard.store import ShardStore

MADE_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={})


def lines(count: int) -> list[Entry]:
    requests = (
        ImageRequest(prompt=f"fox {n}", seed=n, model="shapes", revision="1", height=16, width=16)
        for n in range(count)
    )
    return [Entry.of(request=request, id=None, columns={}) for request in requests]


def opened(output: Output, attempt: str = "1") -> ShardStore:
    return ShardStore(
        output, 0, attempt, lines(2), job_id="foxes-1", column_names=[], adopt_below=0, layout="webdataset"
    )


@pytest.fixture
def output(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Output.at(f"s3://{bucket}/foxes")


def test_nothing_of_a_spool_is_synced_that_other_machines_never_see(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    local = Output(tmp_path / "local")
    local.prepare()
    monkeypatch.setattr(os, "fsync", synced.append)
    for one, at_least, at_most in ((output, 0, 0), (local, 4, 100)):
        store = opened(one)
        for position in range(2):
            store.save(position, np.full((16, 16, 3), position, np.uint8), MADE_BY)
        assert store.commit([])
        assert at_least <= len(synced) <= at_most
        assert [record["seed"] for record in one.records(0)] == [0, 1]


def test_a_picture_that_the_power_left_half_is_not_adopted(output: Output) -> None:
    store = opened(output)
    for position in range(2):
        store.save(position, np.full((16, 16, 3), position, np.uint8), MADE_BY)
    image = store.folder / "images" / "000000001.png"
    image.write_bytes(image.read_bytes()[:40])
    assert opened(output, "2").adopt() == [0]
