"""Workers whose model load or forward hangs: it is told, nothing more is claimed, and the process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.farm import Farm
from tests.trouble import HANGING_FORWARD, HANGING_LOAD, TROUBLED
from tests.waiting import wait_until


@pytest.fixture
def away(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; while it is there, what its variable names hangs in the workers."""
    for name, value in TROUBLED.items():
        monkeypatch.setenv(name, value)
    file = farm.folder / "the file server is away"
    file.touch()
    return file


def test_a_load_that_hangs_is_told_holds_nothing_else_and_ends_its_process(
    farm: Farm, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HANGING_LOAD, str(away))
    farm.start_worker("w1", "--stall-limit", "8")
    job_id = farm.submit(8)
    wait_until(lambda: farm.status(job_id).notices, "it is told")
    (notice,) = farm.status(job_id).notices.values()
    assert notice.startswith("loading instant since ") and "without progress for " in notice
    shown = farm.command("status", job_id).stdout
    assert "  waits     cpu0@w1: loading instant since " in shown
    other = farm.submit(4, name="dogs", output=str(farm.folder / "dogs"))
    assert "claims nothing meanwhile" in farm.log("w1")
    first = farm.celery_pid("w1")
    wait_until(lambda: farm.celery_pid("w1") not in (first, None), "the supervisor starts another")
    assert "--stall-limit" in farm.log("w1")
    assert farm.status(other).started == 0.0
    away.unlink()
    farm.finished(other)
    farm.finished(job_id)
    farm.check_exact(job_id, 8)


def test_cancelling_the_job_whose_load_hangs_frees_its_worker(
    farm: Farm, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HANGING_LOAD, str(away))
    farm.start_worker("w1", "--stall-limit", "12")
    job_id = farm.submit(8)
    wait_until(lambda: farm.status(job_id).workers, "it is claimed")
    farm.command("cancel", job_id)
    first = farm.celery_pid("w1")
    wait_until(lambda: farm.celery_pid("w1") not in (first, None), "the process has ended")
    assert "no job wants it any more" in farm.log("w1")
    away.unlink()
    assert farm.finished(job_id).outcome == "cancelled"


def test_a_forward_that_hangs_ends_its_process_and_the_next_renders_the_rest(
    farm: Farm, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HANGING_FORWARD, str(away))
    farm.start_worker("w1", "--stall-limit", "4")
    job_id = farm.submit(["one", "!hang two", "three"])
    wait_until(lambda: "--stall-limit" in farm.log("w1"), "the process ends")
    away.unlink()
    assert "rendering instant since" in farm.log("w1")
    farm.finished(job_id)
    farm.check_exact(job_id, 3)
