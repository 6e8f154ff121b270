"""What Celery's signals begin and its tasks use: this worker process's runtime, and its events."""

from __future__ import annotations

from typing import Any

from worker.runtime import Runtime

_runtime: list[Runtime] = []
_consumer: list[Any] = []


def begin(runtime: Runtime) -> None:
    """Makes `runtime` this process's."""
    _runtime[:] = [runtime]


def runtime() -> Runtime:
    """This process's runtime; there is one from Celery's `celeryd_init` on."""
    return _runtime[0]


def consume(consumer: Any) -> None:
    """Keeps Celery's consumer, whose event dispatcher changes with each connection."""
    _consumer[:] = [consumer]


def event_dispatcher() -> Any | None:
    """The dispatcher of this worker's own events; None while Celery connects anew."""
    return _consumer[0].event_dispatcher if _consumer else None
