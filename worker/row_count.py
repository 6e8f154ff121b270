"""How many rows a forward should have: measured, because it depends on the device, the model and the size."""

from __future__ import annotations

from collections.abc import Callable

from worker.renderer import OutOfMemory

FEWEST, MOST = 2, 64
_GAIN = 0.1


def fewest_cheap_rows(seconds: Callable[[int], float]) -> int:
    """The number of rows beyond which twice as many make a row less than 10 % cheaper: 2, 4, 8 … 64.

    seconds(rows) is the time of one forward with so many rows. More rows than needed cost memory, and at the
    end of a job, where they stand empty, time. Raises OutOfMemory when not even two rows fit.
    """
    rows, cost = FEWEST, seconds(FEWEST) / FEWEST
    while rows < MOST:
        try:
            twice = seconds(2 * rows) / (2 * rows)
        except OutOfMemory:
            break
        if twice > cost * (1 - _GAIN):
            break
        rows, cost = 2 * rows, twice
    return rows
