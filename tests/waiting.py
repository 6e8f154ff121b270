"""Waiting for what a test brings about: for progress, with a bound that only a hanging test meets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

LONGEST = 120.0
"""Seconds without any progress. A busy machine takes many times what an idle one takes."""
POLL, SLOWEST_POLL = 0.02, 0.1
"""Seconds between two looks, at the beginning and at the end of a long wait: each is CPU time of others."""


class Overdue(AssertionError):
    """What was awaited did not come."""


class WaitUntil(Protocol):
    """`wait_until`, as a fixture hands it to tests."""

    def __call__(
        self,
        condition: Callable[[], object],
        what: str,
        seconds: float = LONGEST,
        *,
        progress: Callable[[], object] | None = None,
    ) -> None: ...


def wait_until(
    condition: Callable[[], object],
    what: str,
    seconds: float = LONGEST,
    *,
    progress: Callable[[], object] | None = None,
) -> None:
    """Polls a condition until it holds; raises Overdue, which says what was awaited, at the deadline.

    The deadline is `seconds` from the last time that `progress()` changed; without `progress`, from now.
    """
    began = time.monotonic()
    seen, deadline = None, began + seconds
    while not condition():
        if progress is not None and (now := progress()) != seen:
            seen, deadline = now, time.monotonic() + seconds
        if time.monotonic() > deadline:
            raise Overdue(f"waited {seconds:g} s in vain: {what}")
        time.sleep(min(max(POLL, (time.monotonic() - began) / 20), SLOWEST_POLL))
