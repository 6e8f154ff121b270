"""A full disk, or a bucket that does not answer, makes writers wait; it never fails an image."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from jobs.output.output import Output
from jobs.output.store import Unreachable
from worker.engine.renderer import Stopped

Result = TypeVar("Result")
log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOOK_AGAIN = 1.0
"""Seconds between two checks of a full disk."""


def free_bytes(output: Output) -> int:
    """Free space for this user where the output, or with a bucket its spool, lies; in bytes."""
    if output.in_bucket:
        output.path.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(output.path).free


class WithSpace(Protocol):
    """Makes a call that writes, or reads what may not answer, once that can be."""

    def __call__(self, write: Callable[[], Result]) -> Result: ...


class DiskSpace:
    """Lets writers through while there is space above the low-watermark, in bytes."""

    def __init__(self, min_free: int, stop: threading.Event) -> None:
        self._min_free, self._stop = min_free, stop
        self._waiting: dict[int, str] = {}

    def write(
        self,
        output: Output,
        write: Callable[[], Result],
        check: Callable[[], None],
        *,
        watermark: bool = True,
    ) -> Result:
        """Write once there is space (with `watermark`, above the low-watermark), and again after ENOSPC and
        when the output's bucket did not answer.

        `check` is called while it waits, and may raise to end the wait. Raises Stopped when the worker stops.
        """
        try:
            return self._write(output, write, check, self._min_free if watermark else 0)
        finally:
            self._waiting.pop(threading.get_ident(), None)

    @property
    def notice(self) -> str:
        """What writers wait for; empty while they do not."""
        return "; ".join(sorted(set(self._waiting.values())))

    def _write(
        self, output: Output, write: Callable[[], Result], check: Callable[[], None], min_free: int
    ) -> Result:
        while True:
            if (free := free_bytes(output)) < min_free:
                self._wait(
                    f"{free / (1 << 30):.2f} GiB free at {output.path}, below IMAGEMILL_MIN_FREE_DISK = "
                    f"{min_free / (1 << 30):.2f} GiB"
                )
                check()
                continue
            try:
                return write()
            except Unreachable as error:
                self._wait(f"{error.filename} cannot be reached: {error.strerror}")
                check()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._wait(f"no space left at {output.path}")
                check()

    def _wait(self, notice: str) -> None:
        if not self.notice:
            log.warning("paused: %s", notice)
        self._waiting[threading.get_ident()] = notice
        if self._stop.wait(_LOOK_AGAIN):
            raise Stopped
