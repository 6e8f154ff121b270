"""The one task asks the runtime for work, and shows Flower which job and shard it got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jobs.ledger.broker import celery_app
from jobs.ledger.wake_up import RENDER_TASK
from worker.process import WorkerProcess
from worker.runtime import Runtime
from worker.tasks import render


class Office:
    """In the runtime's place: serves `claims`, one after the other."""

    def __init__(self, *claims: tuple[str, str]) -> None:
        self.claims = list(claims)

    def serve(self, announce: Callable[[str, str], None]) -> dict[str, object] | None:
        if not self.claims:
            return None
        job_id, shard = self.claims.pop(0)
        announce(job_id, shard)
        return {"job": job_id, "ended": "committed"}

    def start(self) -> None:
        pass


class Dispatcher:
    """In the place of the worker's event dispatcher: keeps what is sent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))


class Consumer:
    """In the place of Celery's consumer."""

    def __init__(self, event_dispatcher: Dispatcher | None) -> None:
        self.event_dispatcher = event_dispatcher


def run(office: Office, dispatcher: Dispatcher | None) -> Any:
    """Runs the task in a worker process with that runtime, as Celery does."""
    app = celery_app("redis://localhost:6379/0")
    app.worker_process = WorkerProcess(cast("Runtime", office))
    app.worker_process.start(Consumer(dispatcher))
    app.set_current()
    return render.apply(task_id="t-1").get()


def test_it_has_the_wire_name_that_producers_send() -> None:
    assert render.name == RENDER_TASK


def test_its_result_says_what_was_done_and_its_event_what_was_claimed() -> None:
    dispatcher = Dispatcher()
    assert run(Office(("cats-1", "12")), dispatcher) == {"job": "cats-1", "ended": "committed"}
    assert dispatcher.events == [("task-started", {"uuid": "t-1", "args": "('cats-1', 12)", "kwargs": "{}"})]


def test_a_finishing_is_announced_by_its_name() -> None:
    dispatcher = Dispatcher()
    run(Office(("cats-1", "finish")), dispatcher)
    assert dispatcher.events[0][1]["args"] == "('cats-1', 'finish')"


def test_without_work_it_says_so_and_announces_nothing() -> None:
    dispatcher = Dispatcher()
    assert run(Office(), dispatcher) == "nothing to do"
    assert dispatcher.events == []


def test_without_a_dispatcher_the_work_is_done_all_the_same() -> None:
    assert run(Office(("cats-1", "0")), None) == {"job": "cats-1", "ended": "committed"}
