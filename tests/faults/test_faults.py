"""Every fault once, and some again as the seed has it: no image is lost, none is counted twice.

The faults hit one job after the other (`soak.Soak`), whose verdicts come when they end: a fault that costs an
image turns the test red in which its job ends, with the names of all that hit it.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.breakable_redis import BreakableRedis
from tests.faults.arming import Order
from tests.faults.faults import FAULTS, Fault
from tests.faults.field import Field
from tests.faults.soak import Soak, schedule

SEED = 7
AGAIN = 20
"""Faults drawn by the seed after each kind was there once."""
IMAGES = 8000
ROWS = 16
"""Of the stand-in model."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """Two armed workers on a Redis that breaks."""
    folder = tmp_path_factory.mktemp("faults")
    with BreakableRedis(folder / "redis") as server:
        field = Field(folder, server, SEED, workers=2)
        yield field
        field.stop()


@pytest.fixture(scope="module")
def soak(field: Field) -> Soak:
    """Jobs that last for all faults of this file."""
    soak = Soak(field, IMAGES, len(FAULTS) + AGAIN, print)
    soak.begin()
    return soak


@pytest.fixture
def nothing_wrong(soak: Soak) -> Iterator[None]:
    yield
    problems, soak.verdict.problems = soak.verdict.problems, []
    assert problems == []


@pytest.fixture
def own_job(field: Field, soak: Soak) -> Iterator[None]:
    """A test that is no part of the soak and brings its own job, at full speed."""
    field.pace(0)
    yield
    field.leg = None


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 4 MB at a folder; False where this user may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def remounted(how: str, disk: Path) -> bool:
    """Whether a disk is read-only or writable now."""
    command = ["mount", "-o", f"remount,{how}", disk]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.usefixtures("own_job")
@pytest.mark.parametrize(("guidance_scale", "in_rows"), [(7.5, ROWS // 2), (1.0, ROWS)])
def test_a_crash_costs_no_more_than_the_slots_and_the_bounded_queue_behind_them(
    field: Field, guidance_scale: float, in_rows: int
) -> None:
    """The engine takes nothing more into its rows while 2R finished pictures wait to be written."""
    bound = in_rows + 2 * ROWS
    settings = {"guidance_scale": guidance_scale}
    slow = field.book.give(Order("before write", "sleep", matching="*.png", pause=1.0, lasting=60.0))
    name = f"bound{in_rows}"
    leg = field.leg = field.begin(name, 160, shard_size=160, settings=settings)
    already = len(field.begun())

    def waiting() -> int:
        saved = len(list((leg.output / ".imagemill" / "spool").glob("*/*/metadata/*.json")))
        return len(field.begun()) - already - saved

    field.wait(lambda: waiting() >= 2 * ROWS, "the queue is full")
    holder = next(name for name in field.names if field.attempts(name))
    assert 2 * ROWS <= waiting() <= bound
    field.kill(field.pid_of(holder))
    field.book.withdraw(slow)
    verdict = field.finish(leg)
    assert verdict.problems == []
    assert ROWS < verdict.regenerated <= bound


@pytest.mark.usefixtures("own_job")
def test_a_full_disk_makes_workers_wait_and_a_read_only_one_makes_them_refuse(field: Field) -> None:
    """On a real small disk; where none can be mounted, by the errors that it would give."""
    disk = field.folder / "disk"
    field.pace(0.05)
    with small_disk(disk) as mounted:
        leg = field.leg = field.begin("tight", 160, output=disk / "tight")
        field.goes_on()
        ballast = disk / "ballast"
        if mounted:
            with pytest.raises(OSError, match="No space"), ballast.open("wb") as file:
                while True:
                    file.write(b"x" * 4096)
                    file.flush()
            field.wait(
                lambda: "no space left" in str(field.ledger.status(leg.job_id).notices), "workers wait"
            )
            ballast.unlink()
        else:
            field.lasting(Order("before write", "raise", error=errno.ENOSPC, lasting=1.5))
        field.over(refuses=False)
        if mounted:
            field.wait(lambda: remounted("ro", disk), "no file is open for writing")
            field.wait(lambda: len(field.ledger.status(leg.job_id).refusals) == 2, "both workers refuse")
            assert remounted("rw", disk)
        else:
            field.lasting(Order("before write", "raise", error=errno.EROFS, lasting=1.5))
        field.over(refuses=True)
        field.pace(0)
        assert field.finish(leg).problems == []


@pytest.mark.usefixtures("own_job")
def test_a_shard_of_somebody_elses_images_is_not_taken_for_what_a_crash_left(field: Field) -> None:
    other = field.begin("other", 8, shard_size=8)
    assert field.finish(other).problems == []
    field.pace(0.1)
    leg = field.leg = field.begin("strange", 160, shard_size=8)
    stranger = leg.output / "00019"
    shutil.copytree(other.output / "00000", stranger)
    field.pace(0)
    refused = "holds other images than shard 19"
    field.wait(lambda: refused in str(field.ledger.status(leg.job_id).refusals), "it is named")
    shutil.rmtree(stranger)
    field.ledger.control(leg.job_id, "resume")
    assert field.finish(leg).problems == []


@pytest.mark.usefixtures("nothing_wrong")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_work_goes_on_after(soak: Soak, fault: Fault) -> None:
    soak.strike(fault)


@pytest.mark.usefixtures("nothing_wrong")
def test_work_goes_on_after_faults_in_any_order(soak: Soak) -> None:
    for fault in schedule(SEED, AGAIN):
        soak.strike(fault)


def test_all_images_under_all_these_faults_are_there_once_and_counted_once(soak: Soak) -> None:
    verdict = soak.end()
    assert verdict.problems == []
    assert verdict.images == verdict.files == verdict.bits == verdict.counted >= IMAGES
    assert (verdict.lost, verdict.doubled, verdict.finish_events) == (0, 0, verdict.runs)
