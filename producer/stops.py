"""Ctrl-C and SIGTERM end a command as an error does: everything that cleans up still runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.errors import Interrupted


@contextmanager
def stops_raise(error: Callable[[str], BaseException]) -> Iterator[None]:
    """SIGINT and SIGTERM raise `error` of their name, once; later ones are ignored until the block ends."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise error(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible(left: str) -> Iterator[None]:
    """A KeyboardInterrupt of the block, or of the function that this decorates, becomes Interrupted.

    `left`: the message, which says what was left as it was, or what to do now.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(left) from None
