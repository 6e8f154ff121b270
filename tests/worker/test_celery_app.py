"""Celery's signals begin and end the runtime, as far as one process can show it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from producer.embedded_redis import EmbeddedRedis
from tests.ports import free_port
from tests.waiting import LONGEST

ROOT = Path(__file__).parents[2]


def test_a_process_that_starts_while_redis_is_away_lives_for_health_checks(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from celery import signals
import worker.celery_app
signals.celeryd_init.send(sender="gpu0@test")
print(sorted(file.name for file in Path("runtime/beats").iterdir()))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IMAGEMILL_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
            "IMAGEMILL_RUNTIME_DIR": str(tmp_path / "runtime"),
        },
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert ended.stdout == "['gpu0@test']\n", ended.stderr


def test_the_signals_start_stop_and_close_the_runtime_and_torch_is_never_loaded(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    code = """
import sys, time
from celery import signals
import worker.celery_app as cell
from jobs.ledger.ledger import Ledger
from jobs.ledger.broker import RENDER_TASK

cell.app.loader.import_default_modules()
assert sorted(cell.app.tasks) == [RENDER_TASK], sorted(cell.app.tasks)
signals.celeryd_init.send(sender="gpu0@test")
class Consumer:
    event_dispatcher = None
signals.worker_ready.send(sender=Consumer())
ledger = Ledger(sys.argv[1])
deadline = time.monotonic() + 120
while "gpu0@test" not in ledger.workers() and time.monotonic() < deadline:
    time.sleep(0.02)
assert list(ledger.workers()) == ["gpu0@test"], ledger.workers()
assert cell.app.tasks[RENDER_TASK].apply().get() == "nothing to do"
signals.worker_shutting_down.send(sender=None)
cell.app.worker_process.runtime.wait()  # it returns once the engine was stopped
signals.worker_shutdown.send(sender=None)
assert ledger.workers() == {}
heavy = {"torch", "diffusers"} & set(sys.modules)
assert not heavy, heavy
print("all is well")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, redis_server.url],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IMAGEMILL_REDIS_URL": redis_server.url,
            "IMAGEMILL_OUTPUT_ROOT": str(tmp_path),
            "IMAGEMILL_LEASE": "1",
        },
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert ended.stdout == "all is well\n", ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_redis_that_strangers_could_use_is_refused_by_whatever_loads_the_application_flower_too() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import worker.celery_app"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IMAGEMILL_REDIS_URL": "redis://queue.invalid/0",
        },
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert loaded.returncode == 1
    assert "beyond this machine Redis needs a password or TLS" in loaded.stderr
