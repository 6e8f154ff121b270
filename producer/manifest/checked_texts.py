"""Lists of a manifest as texts, each checked once, however many lines have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jobs.adapters import NONE
from jobs.errors import ManifestError

_MOST: Final = 10_000
"""Lists that are remembered."""


class CheckedTexts:
    """Gives what a list means, or raises again what is wrong with it; an empty one is right."""

    def __init__(self, check: Callable[[str], str]) -> None:
        """check: what a written list means; raises ManifestError for a wrong one."""
        self._check = check
        self._known: dict[str, str | ManifestError] = {}

    def __call__(self, written: str) -> str:
        """What the list means. Raises ManifestError; it does not say where the list stands."""
        if written == NONE:
            return NONE
        known = self._known.get(written)
        if known is None:
            try:
                known = self._check(written)
            except ManifestError as error:
                known = error
            if len(self._known) < _MOST:
                self._known[written] = known
        if isinstance(known, ManifestError):
            raise known
        return known

    def trouble(self, written: str) -> str | None:
        """What of a list cannot be used; None where all of it can."""
        try:
            self(written)
        except ManifestError as error:
            return str(error)
        return None
