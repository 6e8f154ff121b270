"""Workers that leave by themselves: the job is complete before they do, whatever becomes of some of them."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
import pytest

from tests.farm import Farm
from tests.waiting import LONGEST, WaitUntil

NAMES = ("w1", "w2", "w3", "w4")
IMAGES, SHARD = 96, 8
IDLE = "3"
ENDLESS = 600.0
"""A lease that does not run out while a test lasts: what is given back was given back."""


def four_workers(farm: Farm, *options: str, **settings: object) -> None:
    for name in NAMES:
        farm.start_worker(name, "--until-idle", IDLE, *options, concurrency=1, **settings)


def renders(farm: Farm, job_id: str, wait_until: WaitUntil) -> str:
    """Waits until a worker is in the middle of the job and holds a shard of it; returns its name."""

    seen: list[str] = []

    def busy() -> bool:
        status = farm.status(job_id)
        if SHARD <= status.done < IMAGES // 2:
            seen.extend(worker.split("@")[1] for worker in status.workers)
        return bool(seen)

    wait_until(busy, "a worker holds a shard", progress=lambda: farm.status(job_id).done)
    return seen[0]


def family(farm: Farm, name: str) -> list[psutil.Process]:
    supervisor = psutil.Process(farm.workers[name].pid)
    return [supervisor, *supervisor.children()]


def frozen_with_a_shard(farm: Farm, job_id: str, wait_until: WaitUntil) -> str:
    """Freezes a worker that holds a shard; returns its name. One that has just ended its shard goes on."""
    while True:
        name = renders(farm, job_id, wait_until)
        for process in family(farm, name):
            process.suspend()
        if any(worker.endswith(f"@{name}") for worker in farm.status(job_id).workers):
            return name
        for process in family(farm, name):
            process.resume()


def statuses(farm: Farm, *names: str) -> dict[str, int]:
    return {name: farm.workers[name].wait(LONGEST) for name in names}


def others(name: str) -> list[str]:
    return [other for other in NAMES if other != name]


def test_four_workers_finish_a_job_and_leave_with_0(farm: Farm) -> None:
    job_id = farm.submit(IMAGES, shard_size=SHARD)
    four_workers(farm)
    assert statuses(farm, *NAMES) == dict.fromkeys(NAMES, 0)
    farm.check_exact(job_id, IMAGES)
    for name in NAMES:
        assert "leaving with exit status 0: nothing has been left here for 3 s" in farm.log(name)
        assert not re.search(r"killing|died", farm.log(name))
    assert not farm.ledger.workers(), "each has taken itself off the list"


@pytest.mark.parametrize("how", ["SIGTERM", "a notice"])
def test_a_worker_that_must_go_gives_its_shard_back_and_the_others_render_it(
    farm: Farm, wait_until: WaitUntil, how: str
) -> None:
    job_id = farm.submit(IMAGES, shard_size=SHARD)
    notices = {name: farm.folder / f"{name}-is-taken-away" for name in NAMES}
    for name, notice in notices.items():
        farm.start_worker(
            name,
            *("--until-idle", IDLE, "--spot-notice", str(notice)),
            concurrency=1,
            instant_seconds=0.5,
            lease=ENDLESS,
        )
    victim = renders(farm, job_id, wait_until)
    if how == "SIGTERM":
        farm.workers[victim].terminate()
    else:
        notices[victim].touch()
    assert statuses(farm, victim) == {victim: 143}
    assert farm.status(job_id).state != "finished"
    assert statuses(farm, *others(victim)) == dict.fromkeys(others(victim), 0)
    farm.check_exact(job_id, IMAGES)


def test_the_others_stay_until_the_lease_of_a_dead_worker_ends_and_render_its_shard(
    farm: Farm, wait_until: WaitUntil
) -> None:
    job_id = farm.submit(IMAGES, shard_size=SHARD)
    # Nothing else is left long before this lease ends.
    four_workers(farm, instant_seconds=0.6, lease=15.0)
    victim = frozen_with_a_shard(farm, job_id, wait_until)
    for process in family(farm, victim):
        process.kill()
    assert statuses(farm, victim) == {victim: -signal.SIGKILL}
    held = farm.status(job_id)
    assert any(worker.endswith(f"@{victim}") for worker in held.workers), "nobody gave it back"
    wait_until(
        lambda: (status := farm.status(job_id)).shards_ready == 0 and status.shards_leased == 1,
        "the dead worker's shard is all that is left",
        progress=lambda: farm.status(job_id).done,
    )
    assert [farm.workers[name].poll() for name in others(victim)] == [None] * 3
    assert statuses(farm, *others(victim)) == dict.fromkeys(others(victim), 0)
    farm.check_exact(job_id, IMAGES)


def test_a_worker_that_refuses_what_is_left_leaves_with_3_and_another_renders_it(farm: Farm) -> None:
    # Its outputs lie elsewhere, so it refuses what lies here.
    elsewhere = farm.folder / "elsewhere"
    elsewhere.mkdir()
    job_id = farm.submit(SHARD)
    farm.start_worker("w1", "--until-idle", IDLE, output_root=elsewhere)
    assert statuses(farm, "w1") == {"w1": 3}
    assert "this worker does not take" in farm.log("w1")
    assert farm.status(job_id).done == 0
    farm.start_worker("w2", "--until-idle", IDLE)
    assert statuses(farm, "w2") == {"w2": 0}
    farm.check_exact(job_id, SHARD)
    assert Path(farm.output).is_dir()
