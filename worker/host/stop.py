"""Requests to stop a host's worker: by a signal, because its time has come, or because its parent is gone."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType

from jobs import lifeline
from worker.host import exit_status

_log = logging.getLogger(__name__)
_POLL = 0.1


class Stop:
    """Whether a stop was requested, and the exit status after it. The first request decides."""

    def __init__(self, *, until_idle: bool = False) -> None:
        """`until_idle`: whether status 0 says that nothing was left, so that a signal has one of its own."""
        self.signals = 0
        self.orphaned = False
        self._until_idle = until_idle
        self._status: int | None = None

    def __bool__(self) -> bool:
        return self._status is not None

    @property
    def status(self) -> int:
        """The exit status once everything has stopped in good order."""
        return exit_status.ORDERLY if self._status is None else self._status

    def listen(self, lifeline_fd: int | None) -> None:
        """Take SIGTERM and SIGINT from now on, and watch the lifeline where there is one."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        if lifeline_fd is not None:
            lifeline.watch(lifeline_fd, self._on_gone)

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, less when a stop is requested."""
        deadline = time.monotonic() + seconds
        while not self and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_POLL, left))

    def leave(self, status: int, why: str) -> None:
        """Request a stop that ends with this exit status."""
        if not self:
            self._status = status
            _log.info("leaving with exit status %d: %s", status, why)

    def drain(self, why: str) -> None:
        """Request a stop as SIGTERM does."""
        self.leave(self._told(signal.SIGTERM), why)

    def _told(self, number: int) -> int:
        return exit_status.of_signal(number) if self._until_idle else exit_status.ORDERLY

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No log line: the thread that is interrupted may hold the log's lock.
        self.signals += 1
        if not self:
            self._status = self._told(number)

    def _on_gone(self) -> None:
        self.orphaned = True
        if not self:
            self._status = exit_status.ORDERLY
