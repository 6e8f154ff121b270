"""A ledger that goes away in the middle of a submission."""

from __future__ import annotations

from typing import Any

from jobs.errors import LedgerUnavailable
from jobs.ledger.ledger import Ledger


class Interrupted(Ledger):
    """Goes away at the `nth` add."""

    nth = 2
    adds = 0

    def add(self, *arguments: Any, **named: Any) -> None:
        self.adds += 1
        if self.adds == self.nth:
            raise LedgerUnavailable("Redis does not answer")
        super().add(*arguments, **named)
