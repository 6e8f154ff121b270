"""How many slots a forward should have: measured, for it depends on the device, the model and the size."""

from __future__ import annotations

from collections.abc import Callable

from worker.engine.renderer import OutOfMemory

FEWEST, MOST = 2, 64
GAIN = 0.1
"""What a doubling must gain to count as one."""
_CHEAP = 1.15
"""Times the best cost: noise moves the least times by some percent, and most curves are flat there."""
_ROUNDS = 5
_SECONDS = 4.0


def fewest_cheap_slots(seconds: Callable[[int], float], moved: Callable[[], None] = lambda: None) -> int:
    """The fewest slots, of 2, 4, 8 … 64, that make a slot at most 15 % dearer than the best number does.

    seconds(slots) times one forward with so many slots, the device warm; it is called again and again: the
    numbers are timed in five rounds and the least time of each counts, so that a burst of other work on the
    machine spoils one time, not one number. A round ends after two doublings in a row that gain less than
    10 %; all ends after 4 s of forwards, or one. More slots than needed cost memory, and at the end of a job,
    where they stand empty, time. moved() is called after each forward that was timed. Raises OutOfMemory when
    not even two slots fit.
    """
    costs: dict[int, float] = {}
    most, spent = MOST, 0.0
    for _round in range(_ROUNDS):
        slots, dearer, vain = FEWEST, float("inf"), 0
        while slots <= most and vain < 2:
            # Twice as many slots take at most twice as long.
            if spent + costs.get(slots, costs.get(slots // 2, 0.0)) * slots > _SECONDS:
                return _fewest(costs)
            try:
                taken = seconds(slots)
            except OutOfMemory:
                if slots == FEWEST:
                    raise
                most = slots // 2
                costs = {fitting: cost for fitting, cost in costs.items() if fitting <= most}
                break
            moved()
            spent += taken
            costs[slots] = min(costs.get(slots, float("inf")), taken / slots)
            if costs[slots] < dearer * (1 - GAIN):
                dearer, vain = costs[slots], 0
            else:
                vain += 1
            slots *= 2
    return _fewest(costs)


def _fewest(costs: dict[int, float]) -> int:
    return min(slots for slots, cost in costs.items() if cost <= min(costs.values()) * _CHEAP)
