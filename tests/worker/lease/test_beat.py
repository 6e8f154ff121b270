"""A worker process that lives has a young file, which costs a health check no Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from tests.ports import free_port
from tests.waiting import WaitUntil
from worker.lease.beat import EVERY, Beat, sweep
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


def test_a_process_that_waits_for_redis_keeps_its_file_young_until_its_heartbeat_does(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr("worker.lease.beat.EVERY", 0.02)
    beat = Beat(Settings(runtime_dir=tmp_path), "cpu0@host")
    beat.begin()
    assert file.exists(), "at once"
    for _ in range(3):
        age(file, 300)
        wait_until(lambda: time.time() - file.stat().st_mtime < 200, "it is touched again")
    beat.touch()
    wait_until(lambda: "beat" not in {thread.name for thread in threading.enumerate()}, "the thread ends")
    age(file, 300)
    assert time.time() - file.stat().st_mtime > 200, "a heartbeat that does not go round is seen"


def test_no_thread_makes_the_file_again_once_it_has_ended(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr("worker.lease.beat.EVERY", 0.0)
    for _ in range(50):
        with Beat(Settings(runtime_dir=tmp_path), "waiting@host"):
            assert file.with_name("waiting@host").exists()
        assert not file.with_name("waiting@host").exists()
    wait_until(lambda: "beat" not in {thread.name for thread in threading.enumerate()}, "all threads end")
    assert not file.with_name("waiting@host").exists()


def test_the_end_removes_what_another_process_of_the_name_made(tmp_path: Path, file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    Beat(Settings(runtime_dir=tmp_path), "cpu0@host").end()
    assert not file.exists()


def test_old_files_of_a_host_are_swept_and_young_ones_and_those_of_others_stay(
    tmp_path: Path, file: Path
) -> None:
    sweep(Settings(runtime_dir=tmp_path), "host")
    file.parent.mkdir()
    for name, seconds in (("gpu0@host", 300), ("gpu1@host", 60), ("gpu0@another-host", 300)):
        (file.parent / name).touch()
        age(file.parent / name, seconds)
    sweep(Settings(runtime_dir=tmp_path), "host")
    assert sorted(left.name for left in file.parent.iterdir()) == ["gpu0@another-host", "gpu1@host"]


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
