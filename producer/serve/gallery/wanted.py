"""What is asked of one shard, and what it answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from jobs.output.shard_names import SHARD_LIMIT
from producer.serve.gallery.filter import Filter
from producer.serve.gallery.line import Line

EVERY: Final = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Images of a shard."""

    start: int = 0
    """The first place in the shard that counts."""
    stop: int = SHARD_LIMIT
    """The first after it that does not."""
    count: int
    """At most so many."""
    filter: Filter = EVERY
    last: bool = False
    """The last of them instead of the first."""
    late: Callable[[], bool] = lambda: False
    """Whether it has taken long enough."""


@dataclass(frozen=True, slots=True)
class Found:
    """Images of a shard, in its order."""

    lines: Sequence[Line]
    reached: int | None = None
    """The place from which on the shard was not looked at, or before which it was not where the last ones
    were wanted; None: it was, to its end or its beginning."""
    damage: str = ""
    """What of it could not be read, in a line; empty as a rule."""
