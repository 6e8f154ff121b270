"""What a crash costs at most, and what workers do on a disk that is full, read-only or somebody else's."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.arming import Order
from tests.faults.field import Field

SLOTS = 16
"""Of the stand-in model."""


@pytest.fixture(autouse=True)
def _at_full_speed(field: Field) -> None:
    field.pace(0)


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


@pytest.mark.parametrize(("guidance_scale", "in_slots"), [(7.5, SLOTS // 2), (1.0, SLOTS)])
def test_a_crash_costs_no_more_than_the_slots_and_the_bounded_queue_behind_them(
    field: Field, guidance_scale: float, in_slots: int
) -> None:
    """The engine takes nothing more into its slots while 2R finished pictures wait to be written."""
    bound = in_slots + 2 * SLOTS
    settings = {"guidance_scale": guidance_scale}
    slow = field.book.give(Order("before write", "sleep", matching="*.png", pause=1.0, lasting=600.0))
    name = f"bound{in_slots}"
    already = len(field.begun())
    leg = field.leg = field.begin(name, 160, shard_size=160, settings=settings)

    def waiting() -> int:
        """Begun and not saved, or fewer: what is saved is counted last."""
        begun = len(field.begun()) - already
        return begun - len(list((leg.folder / ".imagemill" / "spool").glob("*/*/metadata/*.json")))

    field.wait(lambda: waiting() >= 2 * SLOTS, "the queue is full")
    holder = next(name for name in field.names if field.attempts(name))
    assert waiting() <= bound
    field.kill(field.pid_of(holder))
    field.book.withdraw(slow)
    verdict = field.finish(leg)
    assert verdict.problems == []
    assert SLOTS < verdict.regenerated <= bound


def test_a_full_disk_makes_workers_wait_and_a_read_only_one_makes_them_refuse(field: Field) -> None:
    """On a real small disk; where none can be mounted, by the errors that it would give."""
    disk = field.folder / "disk"
    field.pace(0.05)
    with small_disk(disk) as mounted:
        leg = field.leg = field.begin("tight", 160, output=str(disk / "tight"))
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


def test_a_shard_of_somebody_elses_images_is_not_taken_for_what_a_crash_left(field: Field) -> None:
    other = field.begin("other", 8, shard_size=8)
    assert field.finish(other).problems == []
    field.pace(0.1)
    leg = field.leg = field.begin("strange", 160, shard_size=8)
    stranger = leg.folder / "00019"
    shutil.copytree(other.folder / "00000", stranger)
    field.pace(0)
    refused = "holds other images than shard 19"
    field.wait(lambda: refused in str(field.ledger.status(leg.job_id).refusals), "it is named")
    shutil.rmtree(stranger)
    field.ledger.control(leg.job_id, "resume")
    assert field.finish(leg).problems == []
