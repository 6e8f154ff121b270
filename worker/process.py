"""What Celery's signals begin and its tasks use: this worker process's runtime, and its events."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from worker.runtime import Runtime

log = logging.getLogger(__name__)
_STOP_SECONDS = 8.0
_runtime: list[Runtime] = []
_consumer: list[Any] = []


def begin(runtime: Runtime) -> None:
    """Makes `runtime` this process's."""
    _runtime[:] = [runtime]


def runtime() -> Runtime:
    """This process's runtime; there is one from Celery's `celeryd_init` on."""
    return _runtime[0]


def stop() -> None:
    """Stops the runtime; ends the process itself when that hangs once the engine has left its micro-batch.

    A lease that is not given back runs out: a Redis that does not answer must not hold up a shutdown.
    """
    runtime().stop()
    threading.Thread(target=_end_in_time, name="deadline", daemon=True).start()


def _end_in_time() -> None:
    runtime().wait()
    time.sleep(_STOP_SECONDS)
    log.critical("still not stopped %.0f s after the last step: leaving at once", _STOP_SECONDS)
    os._exit(70)


def consume(consumer: Any) -> None:
    """Keeps Celery's consumer, whose event dispatcher changes with each connection."""
    _consumer[:] = [consumer]


def event_dispatcher() -> Any | None:
    """The dispatcher of this worker's own events; None while Celery connects anew."""
    return _consumer[0].event_dispatcher if _consumer else None
