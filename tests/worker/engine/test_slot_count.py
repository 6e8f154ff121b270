from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from worker.engine.renderer import OutOfMemory
from worker.engine.slot_count import FEWEST, MOST, fewest_cheap_slots


class Device:
    """A forward costs a fixed time and some a slot; `fits` slots fit; `burst`: what other work adds."""

    def __init__(
        self, fixed: float, each: float, fits: int = 10**6, burst: Callable[[int], float] = lambda _call: 1.0
    ) -> None:
        self._fixed, self._each, self._fits, self._burst = fixed, each, fits, burst
        self.calls: Counter[int] = Counter()
        self.spent = 0.0

    def seconds(self, slots: int) -> float:
        self.calls[slots] += 1
        if slots > self._fits:
            raise OutOfMemory("tried to allocate 20 GiB")
        taken = (self._fixed + self._each * slots) * self._burst(self.calls.total())
        self.spent += taken
        return taken


@pytest.mark.parametrize(
    ("fixed", "each", "slots"),
    [
        (0.0, 1e-3, FEWEST),  # a slot costs the same in any number
        (1e-3, 0.0, MOST),  # a forward does
        (2.6e-3, 1e-3, 16),  # a slot costs 1.041 ms at 64 slots, and at 16 1.163, which is 11.7 % more
        (4.0e-3, 1e-3, 32),  # 1.063 and 1.25 ms: 17.6 % more, but 1.125 at 32
    ],
)
def test_the_fewest_slots_are_taken_that_cost_a_seventh_more_at_most(
    fixed: float, each: float, slots: int
) -> None:
    assert fewest_cheap_slots(Device(fixed, each).seconds) == slots


def test_two_doublings_without_gain_end_the_search() -> None:
    device = Device(0.0, 1e-3)
    fewest_cheap_slots(device.seconds)
    assert set(device.calls) == {2, 4, 8}


@pytest.mark.parametrize("spoiled", range(1, 30))
def test_one_burst_of_other_work_changes_nothing(spoiled: int) -> None:
    device = Device(4.0e-3, 1e-3, burst=lambda call: 9.0 if call == spoiled else 1.0)
    assert fewest_cheap_slots(device.seconds) == 32


def test_a_busy_machine_gives_the_same_slots_every_time() -> None:
    found = set()
    for run in range(50):
        chance = random.Random(run)

        def burst(_call: int, chance: random.Random = chance) -> float:
            return chance.uniform(1.1, 4.0) if chance.random() < 0.3 else chance.uniform(1.0, 1.01)

        found.add(fewest_cheap_slots(Device(4.0e-3, 1e-3, burst=burst).seconds))
    assert found == {32}


def test_forwards_of_many_seconds_are_run_once_and_for_few_numbers_of_slots() -> None:
    slow = Device(20.0, 0.5)
    assert fewest_cheap_slots(slow.seconds) == FEWEST
    assert slow.calls == {2: 1}
    slower = Device(0.0, 0.1)  # 0.2 s, 0.4 s, 0.8 s: twice, then 1.6 s more would be too long
    assert fewest_cheap_slots(slower.seconds) == FEWEST
    assert 2.0 < slower.spent <= 4.0


def test_slots_that_do_not_fit_are_not_taken() -> None:
    device = Device(1e-3, 0.0, fits=15)
    assert fewest_cheap_slots(device.seconds) == 8
    assert device.calls[16] == 1
    assert fewest_cheap_slots(Device(1e-3, 0.0, fits=2).seconds) == 2


def test_each_forward_that_was_timed_is_a_sign_of_progress() -> None:
    device = Device(1e-3, 0.0, fits=15)
    signs: list[int] = []
    fewest_cheap_slots(device.seconds, lambda: signs.append(device.calls.total()))
    fitting = device.calls.total() - device.calls[16]
    assert len(signs) == len(set(signs)) == fitting > 3


def test_a_device_without_room_for_two_slots_says_so() -> None:
    with pytest.raises(OutOfMemory, match="20 GiB"):
        fewest_cheap_slots(Device(1e-3, 0.0, fits=1).seconds)
