"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.field import Field
from tests.faults.oracle import Verdict


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks."""

    name: str
    strike: Callable[[Field], Verdict | None]
    """Returns once it is over but for workers that are still coming back; the verdict on a job of its own."""
    images: int = 0
    """Of that job."""
    refuses: bool = False
    """Whether workers refuse the job then, as they should, until it is resumed."""
