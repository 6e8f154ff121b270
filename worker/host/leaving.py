"""When a worker leaves by itself: nothing is left, Redis is away, or its machine is taken away."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import LedgerError, SettingsError
from jobs.ledger.job import Outlook
from jobs.ledger.ledger import Ledger
from worker.host import exit_status
from worker.host.stop import Stop

_log = logging.getLogger(__name__)
_LOOK = 5.0
"""Seconds from one look at the ledger to the next, less where little time is given."""
_NOTICE_LOOK = 0.5


@dataclass(frozen=True, slots=True)
class Leaving:
    """When to leave, besides a signal; None: never for that reason."""

    until_idle: float | None = None
    """After so many seconds in which nothing was left for any worker process of this host."""
    redis_patience: float | None = None
    """After so many seconds without an answer of Redis."""
    spot_notice: Path | None = None
    """Once there is a file of this name."""

    def refuse_what_cannot_come(self) -> None:
        """Raises SettingsError if no notice could be seen, since its folder is not there or not open."""
        file = self.spot_notice
        if file is not None and not (file.parent.is_dir() and os.access(file.parent, os.X_OK)):
            raise SettingsError(
                f"--spot-notice {file}: there is no folder {file.parent} that this user may look into: make "
                "it, or name a file in another folder"
            )


class Idleness:
    """Since when nothing has been left. Thread-free: the caller asks, looks and tells the time."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long nothing must have been left."""
        self._seconds = seconds
        self._since: float | None = None
        self._growth = 0

    def look(self, outlook: Outlook | None, now: float) -> bool:
        """Takes what the ledger says, None without an answer; returns whether it is time to leave.

        Only time between two looks that both found nothing counts, and a job that is being submitted
        begins it again.
        """
        if outlook is None or outlook.left:
            self._since = None
            return False
        if self._since is None or outlook.growth != self._growth:
            self._since, self._growth = now, outlook.growth
        return now - self._since >= self._seconds


def watch(
    leaving: Leaving, stop: Stop, ledger: Ledger, nodes: Callable[[], Sequence[str]], models: Sequence[str]
) -> None:
    """Looks at Redis in a daemon thread, and tells `stop` when it is time to leave.

    `nodes` gives the names of the worker processes that are kept alive. Does nothing where Redis is no reason
    to leave.
    """
    if leaving.until_idle is None and leaving.redis_patience is None:
        return

    def look_again_and_again() -> None:
        given = [seconds for seconds in (leaving.until_idle, leaving.redis_patience) if seconds is not None]
        pause = min(_LOOK, *(seconds / 4 for seconds in given))
        idleness = None if leaving.until_idle is None else Idleness(leaving.until_idle)
        answered = time.monotonic()
        while not stop:
            outlook = _outlook(ledger, nodes(), models)
            now = time.monotonic()
            if outlook is not None:
                answered = now
            elif leaving.redis_patience is not None and now - answered >= leaving.redis_patience:
                stop.leave(exit_status.NO_REDIS, f"Redis has given no answer for {now - answered:.0f} s")
            if idleness is not None and idleness.look(outlook, now) and outlook is not None:
                stop.leave(*_why_idle(outlook, leaving.until_idle))
            stop.wait(pause)

    threading.Thread(target=look_again_and_again, name="leaving", daemon=True).start()


def watch_for_notice(file: Path, stop: Stop) -> None:
    """Asks `stop` in a daemon thread to drain, once there is a file of this name or if there is one."""

    def look_again_and_again() -> None:
        while not stop:
            if os.path.lexists(file):
                stop.drain(f"the notice {file} is there")
            stop.wait(_NOTICE_LOOK)

    threading.Thread(target=look_again_and_again, name="spot notice", daemon=True).start()


def _outlook(ledger: Ledger, nodes: Sequence[str], models: Sequence[str]) -> Outlook | None:
    """What may still come; None without an answer, which the worker processes log."""
    try:
        return ledger.outlook(nodes, models)
    except LedgerError as error:
        _log.debug("%s", error)
    except Exception:
        # A thread that dies would keep the worker for ever: log the error and try again.
        _log.exception("whether something is left is not known; trying again")
    return None


def _why_idle(outlook: Outlook, seconds: float | None) -> tuple[int, str]:
    """The exit status, and the reason in words."""
    why = f"nothing has been left here for {seconds:g} s"
    further = [
        f"{count} {what}"
        for count, what in (
            (outlook.open, "without a sign of its submission"),
            (outlook.paused, "paused"),
            (outlook.refused, "refused here, as the log says"),
        )
        if count
    ]
    if further:
        why += f" (of the jobs that are not finished: {', '.join(further)})"
    return exit_status.ALL_REFUSED if outlook.refused else exit_status.ORDERLY, why
