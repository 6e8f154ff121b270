"""With Sentinels, a master that is lost in the middle of a job costs seconds and no picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
import redis

from jobs.errors import LedgerUnavailable
from jobs.ledger.job import JobStatus
from tests.farm import Farm
from tests.sentinels import Sentinels
from tests.waiting import WaitUntil

BLOWS = [Sentinels.master_killed, Sentinels.master_hangs, Sentinels.master_replaced]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Farm]:
    """A farm whose Redis is a master and a replica under three Sentinels."""
    with Sentinels(tmp_path / "set") as server:
        farm = Farm(tmp_path, server)
        yield farm
        farm.stop()


def once(farm: Farm, job_id: str, holds: Callable[[JobStatus], bool], wait_until: WaitUntil) -> None:
    """Waits until a job's status is as asked, for as long as the job comes nearer to its end."""
    seen: list[JobStatus] = []

    def asked() -> bool:
        with suppress(LedgerUnavailable):
            seen[:] = [farm.status(job_id)]
        return bool(seen) and holds(seen[0])

    try:
        wait_until(asked, job_id, progress=lambda: [(one.done, one.failed) for one in seen])
    except AssertionError as error:
        error.add_note("\n".join(farm.log(name)[-3000:] for name in farm.workers))
        raise


def test_a_master_that_dies_in_the_middle_of_a_job_costs_no_picture(
    watched: Farm, wait_until: WaitUntil
) -> None:
    assert isinstance(watched.server, Sentinels)
    watched.start_worker(instant_seconds=0.4)
    done = watched.command("submit", watched.manifest(160))
    assert (done.returncode, done.stderr) == (0, "")
    once(watched, "cats-1", lambda status: status.done >= 16, wait_until)
    watched.server.sentinel_killed()
    assert watched.status("cats-1").left > 60, "the job is not in its middle"
    watched.server.master_killed()
    once(watched, "cats-1", lambda status: status.state == "finished", wait_until)
    watched.check_exact("cats-1", 160)
    assert "In Celery 5.1" not in watched.log("w1")


def steer(farm: Farm, job_id: str, action: Literal["pause", "resume"], wait_until: WaitUntil) -> None:
    """Pauses or resumes as soon as Redis takes it."""

    def done() -> bool:
        with suppress(LedgerUnavailable):
            farm.ledger.control(job_id, action)
            return True
        return False

    wait_until(done, action)


def test_a_command_says_when_no_replica_has_what_it_changed(watched: Farm) -> None:
    assert isinstance(watched.server, Sentinels)
    with watched.server.replica_frozen():
        submitted = watched.command("submit", watched.manifest(8))
        paused = watched.command("pause", "cats-1")
    for done in (submitted, paused):
        assert done.returncode == 0
        assert "note: no replica of this Redis has it yet" in done.stderr
    resumed = watched.command("resume", "cats-1")
    assert (resumed.returncode, resumed.stderr) == (0, "")


def test_a_command_says_what_it_did_although_redis_is_too_full_to_ask_its_replica(watched: Farm) -> None:
    assert isinstance(watched.server, Sentinels)
    assert watched.command("submit", watched.manifest(8)).returncode == 0
    password, port = watched.server.place_of_master()
    with redis.Redis(port=port, password=password) as master:
        master.config_set("maxmemory", 1)
    for command, said in (("pause", "is paused"), ("resume", "continues"), ("cancel", "is ending")):
        done = watched.command(command, "cats-1")
        assert done.returncode == 0 and said in done.stdout, done
        assert "note: no replica of this Redis has it yet" in done.stderr


@pytest.mark.soak
def test_ten_masters_lost_in_the_middle_of_a_job_cost_no_picture(
    watched: Farm, wait_until: WaitUntil
) -> None:
    assert isinstance(watched.server, Sentinels)
    for name in ("w1", "w2"):
        watched.start_worker(name, instant_seconds=0.3)
    job_id = watched.submit(800)
    for nth in range(10):
        steer(watched, job_id, "pause", wait_until)
        watched.server.whole()
        before = watched.status(job_id).done
        steer(watched, job_id, "resume", wait_until)
        once(watched, job_id, lambda status: status.done > before + 8, wait_until)  # noqa: B023
        assert watched.status(job_id).left > 0, "the job ended before the tenth"
        BLOWS[nth % len(BLOWS)](watched.server)
    once(watched, job_id, lambda status: status.state == "finished", wait_until)
    watched.check_exact(job_id, 800)
