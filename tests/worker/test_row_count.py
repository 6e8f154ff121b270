from __future__ import annotations

from collections.abc import Callable

import pytest

from worker.renderer import OutOfMemory
from worker.row_count import FEWEST, MOST, fewest_cheap_rows


def a_forward(fixed: float, each: float, fits: int = 10**6) -> Callable[[int], float]:
    """A device on which a forward costs a fixed time and some for each row, and that holds `fits` rows."""
    asked: list[int] = []

    def seconds(rows: int) -> float:
        assert rows not in asked, "measured twice"
        asked.append(rows)
        if rows > fits:
            raise OutOfMemory("tried to allocate 20 GiB")
        return fixed + each * rows

    return seconds


@pytest.mark.parametrize(
    ("fixed", "each", "rows"),
    [
        (0.0, 1.0, FEWEST),  # a row costs the same in any number
        (1.0, 0.0, MOST),  # a forward does
        (3.9, 1.0, 16),  # a row costs 1.244 at 16 rows, and at 32 1.122, which is 9.8 % less
        (4.1, 1.0, 32),  # 1.256 and 1.128: 10.2 % less
    ],
)
def test_rows_double_while_that_makes_a_row_a_tenth_cheaper(fixed: float, each: float, rows: int) -> None:
    assert fewest_cheap_rows(a_forward(fixed, each)) == rows


def test_rows_that_do_not_fit_are_not_taken() -> None:
    assert fewest_cheap_rows(a_forward(1.0, 0.0, fits=15)) == 8
    assert fewest_cheap_rows(a_forward(1.0, 0.0, fits=2)) == 2


def test_a_device_without_room_for_two_rows_says_so() -> None:
    with pytest.raises(OutOfMemory, match="20 GiB"):
        fewest_cheap_rows(a_forward(1.0, 0.0, fits=1))
