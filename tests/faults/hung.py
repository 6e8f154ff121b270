"""Faults of workers whose model load or forward hangs, as a file server that is away makes them."""

from __future__ import annotations

from tests.faults.arming import Order
from tests.faults.field import Field

LIMIT, SHORT_LIMIT = 8.0, 3.0
"""IMAGEMILL_STALL_LIMIT of the worker: seconds. It tells of the hang after half of that."""
HANG = 5.0
"""Seconds that a hang lasts which is told and does not end the process."""
FOR_GOOD = 600.0


def hung(field: Field, at: str, for_good: bool) -> None:
    """A load or a forward hangs until the worker has told so; then it goes on, or never does.

    In the second case the process must end itself, and its supervisor starts another.
    """
    name = field.any_name()
    limit, pause = (SHORT_LIMIT, FOR_GOOD) if for_good else (LIMIT, HANG)
    # A process that was just started must load.
    with field.restarted(name, stall_limit=limit):
        met = field.order(Order(at, "sleep", name=name, pause=pause), then=field.resume)
        says = f"{name}'s log says "
        told, moves, ended = "claims nothing meanwhile", "it moves again", "is over the limit (--stall-limit)"
        before = {words: field.log(name).count(words) for words in (told, moves, ended)}

        def said(words: str) -> bool:
            return field.log(name).count(words) > before[words]

        field.wait(lambda: said(told), says + told)
        if for_good:
            field.gone(met.pid)
            assert said(ended), field.log(name)[-2000:]
            field.wait(field.ready, "the supervisor has started another")
        else:
            field.wait(lambda: said(moves), says + moves)
            assert field.pid(name) == met.pid, "it need not have ended"
