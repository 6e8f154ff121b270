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


class WorkerProcess:
    """This process, as the Celery application of a worker holds it: `app.worker_process`."""

    def __init__(self, runtime: Runtime) -> None:
        """Nothing is started yet; there is one from Celery's `celeryd_init` on."""
        self.runtime = runtime
        self._consumer: Any | None = None

    def begin(self) -> None:
        """Live, for health checks, while Celery connects."""
        self.runtime.begin()

    def start(self, consumer: Any) -> None:
        """Start the runtime. Celery's consumer is kept: its event dispatcher changes when it reconnects."""
        self._consumer = consumer
        self.runtime.start()

    def stop(self) -> None:
        """Stop the runtime; end the process itself when that hangs once the engine has left its micro-batch.

        A lease that is not given back runs out: a Redis that does not answer must not hold up a shutdown.
        """
        self.runtime.stop()
        threading.Thread(target=self._end_in_time, name="deadline", daemon=True).start()

    def close(self) -> None:
        """Wait for the runtime to end; after the tasks have."""
        self.runtime.close()

    @property
    def event_dispatcher(self) -> Any | None:
        """The dispatcher of this worker's own events; None before it is ready and while Celery reconnects."""
        return None if self._consumer is None else self._consumer.event_dispatcher

    def _end_in_time(self) -> None:
        self.runtime.wait()
        time.sleep(_STOP_SECONDS)
        log.critical("still not stopped %.0f s after the last step: leaving at once", _STOP_SECONDS)
        os._exit(70)
