"""The lines of the metadata: which of them an output has, and the place that a record says it has.

Lines that ask for the same picture are told apart by their id and their user's columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Any

from jobs.columns import INDEX, column_problem
from jobs.output.compact_counter import CompactCounter

_AFTER = "image_id"
"""The column that ours follows; a user's column of the name comes after the settings."""
_PICTURE, _LINE = 1, 2


def has_index(record: Mapping[str, Any]) -> bool:
    """Whether the record's `index` is imagemill's own: there were users' columns of that name before."""
    return INDEX in record and next(islice(record, 3, None), None) == INDEX


def place_of(record: Mapping[str, Any]) -> int | None:
    """The line's place in what its job asked for; None for one from before records had it."""
    place = record[INDEX] if has_index(record) else None
    return place if type(place) is int else None


def numbered(record: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The record with this index. A user's column of that name, of before, is called `column_index` then."""
    own = has_index(record)
    values = {}
    for name, value in record.items():
        if name != INDEX:
            values[name] = value
        elif not own:
            values[f"column_{INDEX}"] = value
        if name == _AFTER:
            values[INDEX] = index
    return values


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own columns of a record."""
    own = has_index(record)
    return {name: value for name, value in record.items() if _is_users(name) and not (own and name == INDEX)}


@lru_cache(4096)
def _is_users(name: str) -> bool:
    return column_problem(name) is None


def line_key(image_id: str, id: str | None, columns: Mapping[str, Any]) -> int:
    """64 bits that lines of one picture, id and columns have in common; a column that is null is none.

    A value is as its JSON text, because a column of several types is written so later.
    """
    own = sorted((name, _as_text(value)) for name, value in columns.items() if value is not None)
    if id is None and not own:
        return int(image_id, 16)
    text = json.dumps([image_id, id, own])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def key_of(record: Mapping[str, Any]) -> int:
    """The `line_key` of a record."""
    return line_key(record["image_id"], record.get("id"), columns_of(record))


class HeldLines:
    """Pictures that an output holds and their lines: 11 bytes each, and none for a line that adds nothing."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._tally = CompactCounter()
        self.pictures = 0
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> bool:
        """Takes in a record; returns whether its line is new."""
        self.pictures += not self._tally.mark(int(record["image_id"], 16), _PICTURE) & _PICTURE
        return not self._tally.mark(key_of(record), _LINE) & _LINE

    def __contains__(self, image_id: object) -> bool:
        """Whether the picture is there."""
        return isinstance(image_id, str) and bool(self._tally.get(int(image_id, 16)) & _PICTURE)

    def take_line(self, image_id: str, id: str | None, columns: Mapping[str, Any]) -> bool:
        """Takes in a line of a picture that is there; returns whether the line is new."""
        return not self._tally.mark(line_key(image_id, id, columns), _LINE) & _LINE

    def has_line(self, image_id: str, id: str | None, columns: Mapping[str, Any]) -> bool:
        """Whether the picture has this line."""
        return bool(self._tally.get(line_key(image_id, id, columns)) & _LINE)
