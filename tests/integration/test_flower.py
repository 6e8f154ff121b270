"""Flower shows a long task while it runs: the worker online, the task STARTED, with its job and shard."""

from __future__ import annotations

import ast
import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from jobs.ledger.job import JobStatus
from tests.ports import free_port
from tests.waiting import WaitUntil

POLLS = 10
BETWEEN = 1.0
TASK_SECONDS, LEASE = 16.0, 1.5
"""The one micro-batch of the one shard: longer than all polls together, and than ten leases."""


@pytest.fixture
def flower(farm, request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """A Flower beside the farm's workers; gives what its API answers, None while it does not listen."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "flower", "--address=127.0.0.1"]
    with (farm.folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--port={port}"], env=farm.environment() | {"FLOWER_BASIC_AUTH": "ann:secret"},
            cwd=farm.folder, stdout=log, stderr=log,
        )  # fmt: skip

    def end() -> None:
        process.kill()
        process.wait()

    request.addfinalizer(end)
    credentials = base64.b64encode(b"ann:secret").decode()

    def ask(path: str) -> Any:
        question = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Basic {credentials}"}
        )
        try:
            with urllib.request.urlopen(question, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            return None

    return ask


def test_ten_of_ten_polls_show_a_long_task_started_with_its_job_and_shard(
    farm,
    flower: Callable[[str], Any],
    finished: Callable[..., JobStatus],
    wait_until: WaitUntil,
) -> None:
    farm.start_worker("w1", instant_seconds=TASK_SECONDS, lease=LEASE)
    wait_until(
        lambda: (flower("/api/workers?status=true") or {}).get("cpu0@w1"), "Flower sees the worker", 30
    )
    job_id = farm.submit(8)
    wait_until(lambda: flower("/api/tasks?state=STARTED"), "a task has started")
    began = time.monotonic()

    shown = []
    for poll in range(POLLS):
        wait_until(lambda: time.monotonic() >= began + (poll + 1) * BETWEEN, "the next poll is due")  # noqa: B023
        workers, tasks = flower("/api/workers?status=true"), flower("/api/tasks")
        shown.append(
            (
                workers,
                [(task["state"], task["args"]) for task in tasks.values() if task["state"] == "STARTED"],
            )
        )
    assert farm.status(job_id).done == 0, "the task ended before the polls did"
    assert shown == [({"cpu0@w1": True}, [("STARTED", repr((job_id, 0)))])] * POLLS

    assert finished(job_id).outcome == "complete"

    def results() -> list[tuple[str, dict[str, Any], float]]:
        return [
            (task["state"], ast.literal_eval(task["result"]), task["runtime"])
            for task in flower("/api/tasks").values()
            if task["args"] == repr((job_id, 0)) and task["result"] is not None
        ]

    wait_until(results, "Flower shows the task's result")
    ((state, result, runtime),) = results()
    assert state == "SUCCESS"
    assert runtime >= 10 * LEASE
    assert result == result | {
        "job": job_id, "shard": 0, "ended": "committed", "rendered": 8, "adopted": 0, "failed": 0,
    }  # fmt: skip
