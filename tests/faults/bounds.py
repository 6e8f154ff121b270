"""What a call may cost and touch, whatever it is given."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CPU_SECONDS, CLOCK_SECONDS = 1.0, 20.0
"""A busy machine slows the clock alone."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    **dict.fromkeys(["mkdir", "remove", "rmdir", "truncate", "chmod", "utime"], slice(1)),
    **{"rename": slice(2), "link": slice(1, 2), "symlink": slice(1, 2)},
}
"""Calls of `os` -> which of their arguments are paths that they change; a folder's descriptor comes last."""

_roots: list[Path] = []
_forbidden: list[Path] = []
_touched: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _roots:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = Path(os.fsdecode(arguments[0])).absolute()
        if arguments[2] & _WRITES:
            # Through a link, too.
            _note("writes", path if arguments[2] & os.O_NOFOLLOW else path.resolve())
        elif any(path.resolve() == one for one in _forbidden):
            _touched.append(f"reads {path}")
    for path in arguments[_CHANGES.get(event.removeprefix("os."), slice(0))]:
        if not isinstance(path, int):
            folder = arguments[-1] if isinstance(arguments[-1], int) and arguments[-1] >= 0 else None
            around = Path.cwd() if folder is None else Path(f"/proc/self/fd/{folder}").readlink()
            _note(event, around / os.fsdecode(path))


def _note(what: str, path: Path) -> None:
    real = path.parent.resolve() / path.name
    if not any(real.is_relative_to(root) for root in _roots):
        _touched.append(f"{what} {path}")


sys.addaudithook(_audit)


class TooSlow(BaseException):
    """No Exception: nothing may catch it."""


def _stop(number: int, _frame: object) -> None:
    raise TooSlow(f"more than {CPU_SECONDS} s of CPU or {CLOCK_SECONDS} s (signal {number})")


@contextmanager
def bounded(root: Path, *, unread: tuple[Path, ...] = ()) -> Iterator[None]:
    """The block ends within a second, changes no file but below `root` and opens none of `unread`.

    A loop without end is broken by a signal; of native code only what Python opens for it is seen.
    """
    _touched.clear()
    _roots.append(root.resolve())
    _forbidden.extend(path.resolve() for path in unread)
    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, _stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, CLOCK_SECONDS)
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
        _roots.clear()
        _forbidden.clear()
    assert not _touched, _touched
