"""A worker process that lives has a young file, which costs a health check no Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from tests.ports import free_port
from tests.waiting import WaitUntil
from worker.lease.beat import EVERY, Beat
from worker.lease.heartbeat import Heartbeat


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "beats" / "cpu0@host"


def age(file: Path, seconds: float) -> None:
    """Makes a file look as if it had been touched `seconds` ago."""
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_the_file_is_young_after_a_touch_and_gone_in_the_end(tmp_path: Path, file: Path) -> None:
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    assert not file.parent.exists(), "nothing is made before the first round"
    beat.touch()
    assert time.time() - file.stat().st_mtime < EVERY
    beat.end()
    assert not file.exists()


def test_a_touch_soon_after_another_writes_nothing(tmp_path: Path, file: Path) -> None:
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    beat.touch()
    age(file, 100)
    beat.touch()
    assert time.time() - file.stat().st_mtime >= 100


def test_files_that_killed_processes_left_are_cleared_a_day_later(tmp_path: Path, file: Path) -> None:
    file.parent.mkdir()
    for name, seconds in (("gpu0@killed", 90_000), ("gpu0@restarting", 60)):
        (file.parent / name).touch()
        age(file.parent / name, seconds)
    Beat(Settings(runtime_dir=tmp_path), "cpu0@host").touch()
    assert sorted(left.name for left in file.parent.iterdir()) == ["cpu0@host", "gpu0@restarting"]


def test_a_folder_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.parent.touch()  # a file where the folder should be
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    beat.touch()
    beat.touch()
    assert len(caplog.records) == 1
    assert "no file for health checks is kept" in caplog.text
    file.parent.unlink()
    beat.touch()
    assert file.exists()


def test_a_folder_that_was_removed_is_made_again(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.lease.beat.EVERY", 0.0)
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    beat.touch()
    shutil.rmtree(file.parent)
    beat.touch()
    assert file.exists()


@pytest.mark.parametrize(("seconds", "healthy"), [(0, True), (100, True), (150, False)])
def test_the_programs_of_any_image_find_a_young_file(file: Path, seconds: float, healthy: bool) -> None:
    file.parent.mkdir()
    file.touch()
    age(file, seconds)
    check = f"find {file.parent} -name '*@host' -mmin -2 | grep -q ."
    assert (subprocess.run(["/bin/sh", "-c", check], check=False).returncode == 0) is healthy


def test_it_stays_young_while_redis_is_away(tmp_path: Path, file: Path, wait_until: WaitUntil) -> None:
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    ledger = Ledger(f"redis://127.0.0.1:{free_port()}")
    heartbeat = Heartbeat(
        ledger,
        "cpu0@host",
        lease=0.3,
        models=(),
        facts=dict,
        top_up=lambda _count: None,
        went_round=beat.touch,
    )
    heartbeat.start()
    try:
        wait_until(file.exists, "the first round, which Redis did not answer")
    finally:
        heartbeat.stop()
