"""The engine's time, shared out among the images in its rows: what an image costs beside any others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.engine.renderer import Bucket, rows_alone
from worker.engine.request_queue import Order


class RowTime:
    """Gives each row its share of the time that a bucket's forwards take, and of all that goes with them.

    Free rows of a padded forward keep their share: a short job tells as well as a long one what an image
    costs when the rows are full.
    """

    def __init__(self, bucket: Bucket, clock: Callable[[], float]) -> None:
        self._at_least = bucket.rows if bucket.mode == "exact" else 1
        self._clock, self._last = clock, clock()
        self._of_a_row = 0.0
        """Seconds that a row was given so far."""
        self._entered: dict[Order, float] = {}

    def share_out(self, inside: Sequence[Order]) -> None:
        """The time since the last call goes to these, which were inside."""
        now, rows = self._clock(), 0
        for order in inside:
            rows += rows_alone(order.request)
            self._entered.setdefault(order, self._of_a_row)
        # Pictures that wait to be decoded are more than the rows hold.
        self._of_a_row += (now - self._last) / max(rows, self._at_least)
        self._last = now

    def seconds(self, order: Order) -> float:
        """What an image that leaves was given."""
        return rows_alone(order.request) * (self._of_a_row - self._entered.pop(order))
