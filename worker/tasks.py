"""The one Celery task: a wake-up. It names no work; the ledger does."""

from __future__ import annotations

from typing import Any

from celery import Task, shared_task

from jobs.failpoints import failpoint
from jobs.ledger.wake_up import RENDER_TASK
from worker.process import WorkerProcess


@shared_task(bind=True, name=RENDER_TASK)  # type: ignore[untyped-decorator]
def render(self: Task) -> dict[str, Any] | str:
    """Claims a shard and renders it; returns what was done, for Flower."""
    process: WorkerProcess = self.app.worker_process

    def announce(job_id: str, shard: str) -> None:
        # The message names no shard; sent again with arguments, the event lets Flower show them. Through the
        # worker's own dispatcher: past its buffer it can overtake `task-received`, which has no arguments.
        dispatcher = process.event_dispatcher
        if dispatcher is not None:
            arguments = repr((job_id, int(shard) if shard.isdecimal() else shard))
            dispatcher.send("task-started", uuid=self.request.id, args=arguments, kwargs="{}")

    done = process.runtime.serve(announce)
    failpoint("before acknowledge")
    return "nothing to do" if done is None else done
