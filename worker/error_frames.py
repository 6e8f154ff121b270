"""What an error keeps in memory: its traceback's frames hold all that was computed in them."""

from __future__ import annotations

import logging
import traceback

log = logging.getLogger(__name__)


def drop_frames(error: BaseException) -> None:
    """Frees what was computed in the calls that an error ended, and in those that its causes ended.

    Their tracebacks go; they are logged at level DEBUG before. Calls that have not ended, such as the
    caller's own, keep their variables.
    """
    log.debug("%s", type(error).__name__, exc_info=error)
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        one = chain.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # Frames that something else holds are emptied; emptied ones would still hold variables of functions
        # within functions.
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
        chain += [one.__cause__, one.__context__]
