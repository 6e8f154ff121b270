"""The one task asks the runtime for work, and tells Flower which job and shard it got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.ledger.broker import RENDER_TASK, celery_app
from worker import process
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


class Dispatcher:
    """In the place of the worker's event dispatcher: keeps what is sent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    dispatcher = Dispatcher()
    monkeypatch.setattr(process, "event_dispatcher", lambda: dispatcher)
    return dispatcher


def run(monkeypatch: pytest.MonkeyPatch, office: Office) -> Any:
    monkeypatch.setattr(process, "runtime", lambda: office)
    celery_app("memory://").set_current()
    return render.apply(task_id="t-1").get()


def test_it_has_the_wire_name_that_producers_send() -> None:
    assert render.name == RENDER_TASK


def test_its_result_says_what_was_done_and_its_event_what_was_claimed(
    monkeypatch: pytest.MonkeyPatch, dispatcher: Dispatcher
) -> None:
    assert run(monkeypatch, Office(("cats-1", "12"))) == {"job": "cats-1", "ended": "committed"}
    assert dispatcher.events == [("task-started", {"uuid": "t-1", "args": "('cats-1', 12)", "kwargs": "{}"})]


def test_a_finishing_is_announced_by_its_name(
    monkeypatch: pytest.MonkeyPatch, dispatcher: Dispatcher
) -> None:
    run(monkeypatch, Office(("cats-1", "finish")))
    assert dispatcher.events[0][1]["args"] == "('cats-1', 'finish')"


def test_without_work_it_says_so_and_announces_nothing(
    monkeypatch: pytest.MonkeyPatch, dispatcher: Dispatcher
) -> None:
    assert run(monkeypatch, Office()) == "nothing to do"
    assert dispatcher.events == []


def test_without_a_dispatcher_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "event_dispatcher", lambda: None)
    assert run(monkeypatch, Office(("cats-1", "0"))) == {"job": "cats-1", "ended": "committed"}
