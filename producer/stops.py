"""Ctrl-C and SIGTERM end a command in the same way: as an error, past everything that cleans up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stops_raise(error: Callable[[str], BaseException]) -> Iterator[None]:
    """SIGINT and SIGTERM raise `error` of their name, once; what follows, until the end, is not heard."""

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
