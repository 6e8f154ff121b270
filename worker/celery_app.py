"""The Celery application of a worker process: `celery -A worker.celery_app worker`. Imports no torch."""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from jobs.connection import redis_url
from jobs.ledger.broker import celery_app, wake
from jobs.ledger.wake_up import RENDER_TASK
from jobs.lifeline import end_with_parent
from jobs.settings import load_settings
from worker import logs
from worker.process import WorkerProcess
from worker.runtime import Runtime

_settings = load_settings()
_url = redis_url(_settings)
app = celery_app(_url)
app.conf.imports = ("worker.tasks",)


@app.on_after_finalize.connect  # type: ignore[untyped-decorator]
def _serve_one_task(sender: Celery, **_: Any) -> None:
    """Celery's own tasks (chord_unlock, map, chunks, group, …) send what a message says: none is served."""
    for name in [name for name in sender.tasks if name != RENDER_TASK]:
        sender.tasks.unregister(name)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _leave_the_logs_alone(**_: Any) -> None:
    """A receiver keeps Celery from setting up handlers of its own; `_prepare` sets up ours."""


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _prepare(sender: str, **_: Any) -> None:
    """Runs first, with the worker's name, `gpu0@host`."""
    logs.configure(_settings.log_format, _settings.log_level, sender)
    end_with_parent()
    app.worker_process = WorkerProcess(Runtime(_settings, _url, sender, lambda count: wake(app, count)))
    app.worker_process.begin()


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start(sender: Any, **_: Any) -> None:
    logs.drop_celerys_advice()
    app.worker_process.start(sender)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    app.worker_process.stop()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _close(**_: Any) -> None:
    app.worker_process.close()
