"""How many rows a forward should have: measured, because it depends on the device, the model and the size."""

from __future__ import annotations

from collections.abc import Callable

from worker.engine.renderer import OutOfMemory

FEWEST, MOST = 2, 64
_GAIN = 0.1
"""What a doubling must gain to count as one."""
_CHEAP = 1.15
"""Times the best cost: noise moves the least times by some percent, and most curves are flat there."""
_ROUNDS = 5
_SECONDS = 4.0


def fewest_cheap_rows(seconds: Callable[[int], float]) -> int:
    """The fewest rows, of 2, 4, 8 … 64, that make a row at most 15 % dearer than the best number does.

    seconds(rows) times one forward with so many rows, the device warm; it is called again and again: the
    numbers are timed in five rounds and the least time of each counts, so that a burst of other work on the
    machine spoils one time, not one number. A round ends after two doublings in a row that gain less than
    10 %; all ends after 4 s of forwards, or one. More rows than needed cost memory, and at the end of a job,
    where they stand empty, time. Raises OutOfMemory when not even two rows fit.
    """
    costs: dict[int, float] = {}
    most, spent = MOST, 0.0
    for _round in range(_ROUNDS):
        rows, dearer, vain = FEWEST, float("inf"), 0
        while rows <= most and vain < 2:
            # Twice as many rows take at most twice as long.
            if spent + costs.get(rows, costs.get(rows // 2, 0.0)) * rows > _SECONDS:
                return _fewest(costs)
            try:
                taken = seconds(rows)
            except OutOfMemory:
                if rows == FEWEST:
                    raise
                most = rows // 2
                costs = {fitting: cost for fitting, cost in costs.items() if fitting <= most}
                break
            spent += taken
            costs[rows] = min(costs.get(rows, float("inf")), taken / rows)
            if costs[rows] < dearer * (1 - _GAIN):
                dearer, vain = costs[rows], 0
            else:
                vain += 1
            rows *= 2
    return _fewest(costs)


def _fewest(costs: dict[int, float]) -> int:
    return min(rows for rows, cost in costs.items() if cost <= min(costs.values()) * _CHEAP)
