"""What of a shard cannot be read: the pages show the rest of it, and say so."""

from __future__ import annotations

import shlex

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.wording import counted


class Damage:
    """What of one shard could not be read."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._first: OutputError | None = None
        self._places = 0

    def note(self, error: OutputError, places: int = 1) -> None:
        """Takes more places: one, or several of which `error` tells the first."""
        self._first = self._first or error
        self._places += places

    @property
    def told(self) -> str:
        """The first place, how many there are besides, and the remedy; empty where all could be read."""
        if self._first is None:
            return ""
        besides = f" (and {counted(self._places - 1, 'place')} more)" if self._places > 1 else ""
        doctor = f"`imagemill doctor {shlex.quote(self._output.label)}`"
        return f"{self._first}{besides}. What else is in the shard is shown; {doctor} says what is not"
