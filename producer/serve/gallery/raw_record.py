"""A record that was not parsed: most are passed over."""

from __future__ import annotations

from typing import Any, NamedTuple

from jobs.output.stored_shard import damaged, sound_record
from jobs.strict_json import strict_json


class RawRecord(NamedTuple):
    """A record that was not parsed."""

    position: int
    """In its shard."""
    place: str
    """As messages call it."""
    text: bytes | dict[str, Any]

    def record(self) -> dict[str, Any]:
        """It, parsed. Raises OutputError for what is none."""
        return self.text if isinstance(self.text, dict) else parsed_record(self.place, self.text)


def parsed_record(place: str, text: bytes) -> dict[str, Any]:
    """The record that a text is. Raises OutputError where it is none; `place`: as messages call it."""
    return sound_record(place, parsed(place, text))


def parsed(place: str, text: bytes) -> object:
    """The value that a text of JSON is. Raises OutputError where it is none."""
    try:
        return strict_json(text)
    except ValueError as error:
        raise damaged(place, f"not JSON ({error})") from None
