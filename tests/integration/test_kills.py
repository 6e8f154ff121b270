"""Processes die, freeze and are told to leave in mid-job; every image is there once all the same."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.ledger.job import JobStatus
from jobs.ledger.redis_keys import LEASES
from jobs.ledger.redis_keys import job as job_key
from tests.breakable_redis import BreakableRedis
from tests.farm import Farm
from tests.waiting import LONGEST, WaitUntil

LEASE = 3.0
ENDLESS = 600.0
"""A lease that does not run out while a test lasts: what is given back was given back."""
IMAGES, SHARD = 128, 16
BATCH_SECONDS = 0.3
"""Of 8 images: two micro-batches a shard."""

Finish = Callable[[str], JobStatus]


def leases(farm: Farm, job_id: str) -> dict[str, dict[str, Any]]:
    """Who holds what: shard -> lease, with its attempt `a`, its worker `w` and `t`, when it was claimed."""
    held = farm.client.hgetall(job_key(job_id, "leased"))
    return {shard.decode(): json.loads(lease) for shard, lease in held.items()}


def held_by(farm: Farm, job_id: str, name: str) -> dict[str, str]:
    """Shard -> attempt, of one worker."""
    held = leases(farm, job_id).items()
    return {shard: lease["a"] for shard, lease in held if lease["w"].endswith(f"@{name}")}


def half_done(farm: Farm, shard: str) -> bool:
    """Some of a shard's images are finished in the spool, and not all."""
    spool = farm.output / ".imagemill" / "spool" / f"{int(shard):05d}"
    return 0 < len(list(spool.glob("*/metadata/*.json"))) < SHARD


def caught_mid_shard(farm: Farm, job_id: str, name: str, wait_until: WaitUntil) -> dict[str, str]:
    """Waits until a worker holds a half done shard; returns what it holds: shard -> attempt."""
    wait_until(
        lambda: any(half_done(farm, shard) for shard in held_by(farm, job_id, name)),
        f"{name} is in the middle of a shard",
    )
    return held_by(farm, job_id, name)


def two_workers(farm: Farm, **settings: object) -> str:
    """Starts w1 and w2 on a job that takes them some seconds; returns its id."""
    for name in ("w1", "w2"):
        farm.start_worker(name, instant_seconds=BATCH_SECONDS, **settings)
    return farm.submit(IMAGES, shard_size=SHARD)


def rendered(farm: Farm) -> int:
    """Images that the workers' logs say they rendered; what they adopted is not among them."""
    logs = "".join(farm.log(name) for name in farm.workers)
    return sum(map(int, re.findall(r"(\d+) rendered", logs)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BreakableRedis]:
    """A Redis that can be killed and started again on its data, with its port and password."""
    with BreakableRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def farm(tmp_path: Path, server: BreakableRedis) -> Iterator[Farm]:
    """A farm without workers yet, on that Redis."""
    farm = Farm(tmp_path, server)
    yield farm
    farm.stop()


def test_a_killed_process_costs_no_image_and_its_shards_move_when_their_lease_ends(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm)
    held = caught_mid_shard(farm, job_id, "w1", wait_until)
    pid = farm.celery_pid("w1")
    os.kill(pid, signal.SIGKILL)
    ends = {shard: farm.client.zscore(LEASES, f"{job_id}/{shard}") for shard in held}
    moved: dict[str, int] = {}
    """Shard -> when it was claimed again; ms, by Redis' clock."""

    def all_moved() -> bool:
        for shard, lease in leases(farm, job_id).items():
            if shard in held and lease["a"] != held[shard]:
                moved.setdefault(shard, lease["t"])
        return moved.keys() == held.keys()

    wait_until(all_moved, f"{held} are claimed again")
    assert all(moved[shard] >= end for shard, end in ends.items() if end), "a living lease was taken away"
    wait_until(lambda: farm.celery_pid("w1") not in (None, pid), "the supervisor starts another process")
    finished(job_id)
    farm.check_exact(job_id, IMAGES)
    assert re.search(r"[1-9]\d* adopted", farm.log("w1") + farm.log("w2"))


def test_a_killed_supervisor_takes_its_process_along_and_the_shards_go_back(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm, lease=ENDLESS)
    held = caught_mid_shard(farm, job_id, "w1", wait_until)
    pid = farm.celery_pid("w1")
    assert pid is not None
    farm.workers["w1"].kill()
    farm.workers["w1"].wait()
    wait_until(lambda: not psutil.pid_exists(pid), "the process under the supervisor is gone")
    wait_until(lambda: not held.items() <= held_by(farm, job_id, "w1").items(), "the shards are back")
    finished(job_id)
    farm.check_exact(job_id, IMAGES)
    assert rendered(farm) == IMAGES


def test_a_redis_killed_and_started_again_costs_no_image_even_with_its_last_second_lost(
    farm: Farm, server: BreakableRedis, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm)
    wait_until(lambda: farm.status(job_id).done >= IMAGES // 8, "the job is under way")
    server.kill()
    server.start()
    wait_until(lambda: farm.status(job_id).done >= IMAGES // 3, "the job goes on")
    # `appendfsync everysec`: a host that dies may lose the last second, so an older copy stands in for it.
    data, copy = server.folder / "appendonlydir", farm.folder / "older"
    shutil.copytree(data, copy)
    older = time.monotonic()
    done = farm.status(job_id).done
    wait_until(lambda: time.monotonic() >= older + 1, "the second that will be lost is over")

    def lose_the_last_second() -> None:
        shutil.rmtree(data)
        copy.rename(data)

    server.kill(between=lose_the_last_second)
    server.start()
    assert farm.status(job_id).done >= done - SHARD
    finished(job_id)
    farm.check_exact(job_id, IMAGES)


def test_a_redis_frozen_for_longer_than_a_lease_costs_no_image(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm)
    wait_until(lambda: farm.status(job_id).done >= IMAGES // 4, "the job is under way")
    os.kill(farm.server.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        wait_until(lambda: time.monotonic() > frozen + 5, "five seconds are over")
    finally:
        os.kill(farm.server.pid, signal.SIGCONT)
    finished(job_id)
    farm.check_exact(job_id, IMAGES)


def test_a_worker_frozen_past_its_lease_is_fenced_when_it_thaws(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm)
    held = caught_mid_shard(farm, job_id, "w1", wait_until)
    pid = farm.celery_pid("w1")
    os.kill(pid, signal.SIGSTOP)
    try:
        shards = [farm.output / f"{int(shard):05d}" for shard in held]
        wait_until(lambda: all(shard.is_dir() for shard in shards), "the other worker committed its shards")
    finally:
        os.kill(pid, signal.SIGCONT)
    before = {file: file.stat().st_ino for shard in shards for file in shard.iterdir()}
    finished(job_id)
    wait_until(
        lambda: farm.log("w1").count("another attempt") >= len(held), "the thawed worker leaves its shards"
    )
    farm.check_exact(job_id, IMAGES)
    assert {file: file.stat().st_ino for file in before} == before
    assert "Traceback" not in farm.log("w1")


def test_sigterm_keeps_what_is_finished_and_an_idle_worker_takes_the_rest_at_once(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    for name in ("w1", "w2"):
        farm.start_worker(name, instant_seconds=0.6, lease=ENDLESS)
    wait_until(lambda: len(farm.ledger.workers()) == 2, "both are ready")
    job_id = farm.submit(64, shard_size=64)
    wait_until(lambda: 8 <= farm.status(job_id).done < 64, "the only shard is being rendered")
    (first,) = (name for name in ("w1", "w2") if held_by(farm, job_id, name))
    other = {"w1": "w2", "w2": "w1"}[first]
    farm.workers[first].terminate()
    wait_until(lambda: held_by(farm, job_id, other), "the other worker has it")
    assert farm.workers[first].wait(LONGEST) == 0
    assert re.search(r"released: [1-9]\d* rendered", farm.log(first))
    finished(job_id)
    farm.check_exact(job_id, 64)
    assert re.search(r"committed: \d+ rendered, [1-9]\d* adopted", farm.log(other))
    assert rendered(farm) == 64


def test_a_wiped_redis_costs_no_image_once_the_manifest_is_submitted_again(
    farm: Farm, finished: Finish, wait_until: WaitUntil
) -> None:
    job_id = two_workers(farm)
    wait_until(lambda: farm.status(job_id).done >= IMAGES // 3, "the job is under way")
    farm.client.flushall()
    before = {file: file.stat().st_ino for file in farm.output.glob("[0-9]*/*")}
    assert before
    done = farm.command("submit", farm.folder / "cats.yaml", "--json")
    (submitted,) = json.loads(done.stdout)
    assert (submitted["job_id"], submitted["attached"]) == ("cats-2", False)
    status = finished("cats-2")
    records = farm.records()
    assert len(records) == len({record["image_id"] for record in records}) == IMAGES
    assert (status.done, status.total, status.left) == (IMAGES - status.held, IMAGES - status.held, 0)
    assert {file: file.stat().st_ino for file in before} == before
    assert job_id == "cats-1"
    assert not (farm.output / ".imagemill" / "spool").exists()
