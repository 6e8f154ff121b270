"""What every page works with."""

from __future__ import annotations

from dataclasses import dataclass

from producer.serve.doors import Doors
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.outputs import Outputs
from producer.serve.pages import Pages


@dataclass(frozen=True, slots=True)
class Site:
    """What is shown, to whom, and how."""

    watch: LedgerWatch
    """The ledger, read at most once a second."""
    outputs: Outputs
    """The outputs that may be seen."""
    pages: Pages
    """The templates."""
    doors: Doors
    """Who is let in."""
