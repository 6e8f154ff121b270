"""What attempts left on this machine for outputs in buckets, taken away when no job writes there any more.

The worker that finishes a job removes the spool of its own machine. On others something stays of each attempt
that died.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobs.errors import LedgerError, OutputError
from jobs.ledger.ledger_view import LedgerView
from jobs.location import names_bucket
from jobs.output.output import Output, caches_of_buckets
from worker.lease.repeated import Repeated

log = logging.getLogger(__name__)
KEPT: Final = 3 * 86400.0
"""Seconds that an attempt stays which nobody writes to: the next submission adopts it if Redis lost a job,
and a worker of another Redis may still hold it while its bucket is away."""


class OldSpools:
    """A thread that looks every so many seconds, which costs a listing where there is nothing."""

    def __init__(self, ledger: LedgerView, stop: threading.Event, *, every: float) -> None:
        self._ledger, self._stop, self._every = ledger, stop, every
        self._repeated = Repeated()

    def start(self) -> None:
        """Starts the thread; it ends with `stop`."""
        threading.Thread(target=self._run, name="old spools", daemon=True).start()

    def remove(self) -> None:
        """Removes them once. Raises LedgerError."""
        # Before the ledger is asked: of a job that begins after this nothing is in the list.
        old = [attempt for attempt in _attempts() if time.time() - _written(attempt) > KEPT]
        if not old:
            return
        in_work = {_cache(output) for output in self._ledger.outputs_in_work()}
        for attempt in old:
            if attempt.parents[3] not in in_work:
                shutil.rmtree(attempt, ignore_errors=True)
                for folder in (attempt.parent, attempt.parents[1]):
                    with suppress(OSError):  # something else is there
                        folder.rmdir()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.remove()
                self._repeated.over("old spools")
            except (LedgerError, OSError) as error:
                if (count := self._repeated.to_say("old spools", error)) is not None:
                    log.warning("%s; what old attempts left stays%s", error, count)


def _cache(output: str) -> Path | None:
    """This machine's folder of an output; None of a folder, and of what is no output."""
    try:
        return Output.at(output).path if names_bucket(output) else None
    except OutputError:
        return None


def _attempts() -> Iterator[Path]:
    """`OUTPUT/.imagemill/spool/SHARD/ATTEMPT` of all outputs."""
    return caches_of_buckets().glob("*/.imagemill/spool/*/*")


def _written(attempt: Path) -> float:
    """When something was last added to an attempt, in seconds since 1970."""
    times = [0.0]
    for folder in (attempt, attempt / "images", attempt / "metadata"):
        with suppress(OSError):
            times.append(folder.stat().st_mtime)
    return max(times)
