"""A request that kills its worker is found among its neighbours, recorded, and the job ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.ledger.redis_keys import job as job_key
from producer.embedded_redis import EmbeddedRedis
from tests.farm import Farm
from tests.waiting import WaitUntil

LEASE = 1.0


@pytest.fixture
def farm(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Farm]:
    """A farm without workers yet."""
    farm = Farm(tmp_path, redis_server)
    yield farm
    farm.stop()


def start_workers(farm: Farm, *names: str, seconds: float) -> None:
    for name in names:
        farm.start_worker(name, lease=LEASE, instant_seconds=seconds)


def failures(farm: Farm) -> list[dict[str, object]]:
    return [json.loads(line) for line in (farm.output / "failures.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("troubled")
@pytest.mark.parametrize(
    "seconds", [pytest.param(0.2, id="in the rows for a while"), pytest.param(0.0, id="dies at once")]
)
def test_an_image_that_kills_every_worker_fails_alone_and_the_job_ends(farm: Farm, seconds: float) -> None:
    prompts: list[object] = [f"picture {n}" for n in range(24)]
    prompts[11] = "!die"
    start_workers(farm, "w1", "w2", "w3", "w4", seconds=seconds)
    job_id = farm.submit(prompts)
    status = farm.finished(job_id)
    assert (status.outcome, status.done, status.failed, status.left) == ("failures", 23, 1, 0)
    (failure,) = failures(farm)
    assert failure["request"]["prompt"] == "!die"
    assert "the worker died each time that it rendered this image alone" in failure["reason"]
    assert {row["text"] for row in farm.records()} == {str(prompt) for prompt in prompts if prompt != "!die"}


@pytest.mark.usefixtures("troubled")
def test_two_that_kill_in_one_shard_are_both_found(farm: Farm) -> None:
    start_workers(farm, "w1", "w2", "w3", "w4", seconds=0.1)
    job_id = farm.submit(["!die a", *[f"picture {n}" for n in range(6)], "!die b"])
    status = farm.finished(job_id)
    assert (status.outcome, status.done, status.failed) == ("failures", 6, 2)
    assert {failure["request"]["prompt"] for failure in failures(farm)} == {"!die a", "!die b"}


def test_images_whose_worker_is_killed_from_outside_are_cleared(farm: Farm, wait_until: WaitUntil) -> None:
    start_workers(farm, "w1", "w2", "w3", "w4", seconds=0.5)
    job_id = farm.submit(8)
    for _ in range(3):
        wait_until(lambda: lease(farm, job_id).get("rows"), "the shard is in somebody's rows")
        held = lease(farm, job_id)
        pid = farm.celery_pid(str(held["w"]).partition("@")[2])
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda held=held: lease(farm, job_id).get("a") != held["a"], "its lease ran out")
    farm.finished(job_id)
    farm.check_exact(job_id, 8)
    logs = "".join(farm.log(name) for name in farm.workers)
    assert "workers died over this shard: rendering 8 of its images one by one" in logs
    assert farm.client.exists(job_key(job_id, "deaths")) == 0


def lease(farm: Farm, job_id: str) -> dict[str, object]:
    """Of the job's one shard; empty while nobody holds it."""
    held = farm.client.hget(job_key(job_id, "leased"), "0")
    return {} if held is None else dict(json.loads(held))
