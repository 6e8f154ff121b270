"""The thread that sees an engine that no longer moves, says so, and ends the process when that lasts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.engine.pulse import Pulse, Stall
from worker.engine.renderer import Pipeline

log = logging.getLogger(__name__)
NOTICE = 60.0
"""Seconds without a sign of progress after which that is told, or half of the limit if that is less."""
_AGAIN = 600.0
"""Seconds from one line in the log to the next."""
UNWANTED = 10.0
"""Seconds that a process stays stuck for a job that nobody wants, such as a cancelled one."""


def _end() -> None:
    os._exit(70)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long an engine may stand still, in seconds."""

    limit: float
    """Then the process ends."""
    notice: float = field(init=False)
    """Then it is told."""
    unwanted: float = field(init=False)
    """Then the process ends if nobody wants what it does; counted from the notice or, if that is later, from
    the end of the wanting."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "notice", min(NOTICE, self.limit / 2))
        object.__setattr__(self, "unwanted", min(UNWANTED, self.limit / 4))


class StallWatch:
    """Watches a pulse. A file server that is away blocks a read for ever: no error comes, and no code runs.

    Such a thread cannot be interrupted. So the process ends, its leases go to others, and its supervisor
    starts another.
    """

    def __init__(
        self,
        pulse: Pulse,
        limit: float,
        wanted: Callable[[Pipeline], bool],
        *,
        end: Callable[[], None] = _end,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit`: as `IMAGEMILL_STALL_LIMIT`. `wanted`: whether a claim of this process needs a pipeline, or
        the process itself."""
        self._pulse, self._wanted, self._end, self._clock = pulse, wanted, end, clock
        self._bounds = Bounds(limit)
        self._told_at: float | None = None
        self._unwanted_since: float | None = None
        self._stopped = threading.Event()

    @property
    def stall(self) -> Stall | None:
        """What has not moved for long enough to be told."""
        return self._pulse.stall(self._bounds.notice)

    @property
    def notice(self) -> str:
        """The same in words; empty while all moves."""
        stall = self.stall
        return "" if stall is None else in_words(stall)

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="stall watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the watching: a process that stops has a deadline of its own."""
        self._stopped.set()

    def look(self) -> None:
        """Tells what does not move, and ends the process where that has lasted too long."""
        now, stall = self._clock(), self.stall
        if stall is None:
            if self._told_at is not None:
                log.warning("it moves again")
            self._told_at = self._unwanted_since = None
            return
        if self._told_at is None or now - self._told_at > _AGAIN:
            log.warning(
                "%s; this worker claims nothing meanwhile, and ends itself after %g s without progress",
                in_words(stall),
                self._bounds.limit,
            )
            self._told_at = now
        if self._wanted(stall.pipeline):
            self._unwanted_since = None
        elif self._unwanted_since is None:
            self._unwanted_since = now
        if stall.silent >= self._bounds.limit:
            self._leave(stall, "it is over the limit (--stall-limit)")
        elif self._unwanted_since is not None and now - self._unwanted_since >= self._bounds.unwanted:
            self._leave(stall, "no job wants it any more")

    def _leave(self, stall: Stall, why: str) -> None:
        log.critical("%s: %s: this process ends, to be started again", in_words(stall), why)
        self._end()

    def _run(self) -> None:
        while not self._stopped.wait(min(1.0, self._bounds.limit / 20)):
            self.look()


def in_words(stall: Stall) -> str:
    """`loading /m since 12:00:03 UTC, without progress for 75 s`."""
    began = time.strftime("%H:%M:%S", time.gmtime(time.time() - stall.lasts))
    return (
        f"{stall.doing} {stall.pipeline.model} since {began} UTC, without progress for {stall.silent:.0f} s"
    )
