"""A full disk makes writers wait; it never fails an image."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from jobs.output import Output
from worker.renderer import Stopped
from worker.store import free_bytes

Result = TypeVar("Result")
log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOOK_AGAIN = 1.0
"""Seconds between two looks at a full disk."""


class DiskSpace:
    """Lets writers through while there is space above the low-watermark, in bytes."""

    def __init__(self, min_free: int, stop: threading.Event) -> None:
        self._min_free, self._stop = min_free, stop
        self.notice = ""
        """What writers wait for; empty while they do not."""

    def write(self, output: Output, write: Callable[[], Result], check: Callable[[], None]) -> Result:
        """Makes a write once there is space, and again after ENOSPC.

        `check` is called while it waits, and may raise to end that. Raises Stopped if told to stop.
        """
        while True:
            if (free := free_bytes(output)) < self._min_free:
                self._wait(f"{free / (1 << 30):.2f} GiB free at {output.path}, below IMAGEMILL_MIN_FREE_DISK")
                check()
                continue
            try:
                result = write()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._wait(f"no space left at {output.path}")
                check()
            else:
                self.notice = ""
                return result

    def _wait(self, notice: str) -> None:
        if not self.notice:
            log.warning("paused: %s", notice)
        self.notice = notice
        if self._stop.wait(_LOOK_AGAIN):
            raise Stopped
