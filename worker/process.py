"""This worker process's one runtime, between Celery's signals that begin and end it and its tasks."""

from __future__ import annotations

from worker.runtime import Runtime

_runtime: list[Runtime] = []


def begin(runtime: Runtime) -> None:
    """Makes `runtime` this process's."""
    _runtime.append(runtime)


def runtime() -> Runtime:
    """This process's runtime; there is one from Celery's `celeryd_init` on."""
    return _runtime[0]
