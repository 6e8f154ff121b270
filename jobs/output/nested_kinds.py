"""Which of the user's columns a typed table can hold, and which are written as JSON text.

A table has one type for all values of a column, to the bottom. It has none for the list ["left of", 0], nor
for {"src": "x"} in one row and {"src": 7} in another: `datasets.load_dataset` stops there. Two more it reads
otherwise, without a word: null among the items of a list (it moves to another place), and dates inside of
objects and lists. Such a column is written as JSON text, and `json.loads` gives every value back.

What a table changes without a loss is no reason: an object gets null for each key that only others have, and
whole numbers among decimal ones become decimal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from jobs.errors import OutputError
from jobs.strict_json import strict_json
from jobs.wording import shown

MOST_KEYS: Final = 1000
"""Different keys of the objects at one place: more of them are values rather than names of fields."""

_Kind = None | str | list[Any] | dict[str, Any]
"""As `jobs.output.column_kinds.Kind`, in the words of messages."""

_LARGE = "whole numbers beyond 2**53"
_WORDS: Final[dict[type, _Kind]] = {
    type(None): None, bool: "true or false", int: "whole numbers", float: "decimal numbers", str: "text",
}  # fmt: skip
_NUMBERS: Final = frozenset({"whole numbers", "decimal numbers"})
_WHOLE: Final = frozenset({"whole numbers", _LARGE})
JSON_TEXT, DATES = "JSON text", "dates"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}.*)?", re.DOTALL)
"""What pyarrow, which reads the metadata for `datasets`, takes for a point in time."""
_PICTURE_NAMES = ("file_name", "file_names")


class _Mixed(Exception):
    """No type holds both; says what stands where."""


class ColumnTypes:
    """Learns, record by record, what each column holds."""

    def __init__(self, written: Collection[str] | None = None) -> None:
        """`written`: the only columns that count, of an output, where a text may be one that we wrote as
        JSON."""
        self._written = written
        self._kinds: dict[str, _Kind] = {}
        self._mixed: dict[str, str] = {}
        self._simple: dict[str, type] = {}

    def add(self, columns: Mapping[str, Any]) -> None:
        """Takes in the columns of one record."""
        for name, value in columns.items() if self._written is None else self._own(columns):
            if type(value) is self._simple.get(name) or value is None or name in self._mixed:
                continue
            try:
                kind = self._kind(value, name)
                self._kinds[name] = _merged(self._kinds.get(name), kind, name)
            except _Mixed as error:
                self._mixed[name] = str(error)
            else:
                # A large number is unlike other ones; so is a text that may be JSON.
                if type(value) in (bool, float) or (type(value) is str and self._written is None):
                    self._simple[name] = type(value)
                else:
                    self._simple.pop(name, None)

    def json_columns(self) -> dict[str, str]:
        """The columns that no table holds, and why: "meta.src holds text and whole numbers"."""
        found = dict(self._mixed)
        for name, kind in self._kinds.items():
            if name not in found and (empty := _empty(kind, name)) is not None:
                found[name] = f"{empty} never has a key"
        return found

    def beside(self, held: ColumnTypes) -> dict[str, str]:
        """The columns that are written as JSON text in an output that holds others already, and why.

        Raises OutputError where one table cannot hold what the output has and what is to come.
        """
        found = self.json_columns()
        for name, there in held._kinds.items():
            ours = self._kinds.get(name)
            if name in held._mixed or (ours is None and name not in found):
                continue
            nested = isinstance(ours, (list, dict)) or name in found
            if there == JSON_TEXT:
                if nested:
                    found.setdefault(name, f"{shown(name)} is JSON text in the output")
                continue
            try:
                _merged(there, JSON_TEXT if name in found else ours, name)
            except _Mixed as error:
                raise OutputError(
                    f"columns: {error}: one of them is in the output already, and no table holds both: name "
                    "another output, or call the column otherwise"
                ) from None
        return found

    def _own(self, record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        return ((name, record.get(name)) for name in self._written or ())

    def _kind(self, value: Any, place: str) -> _Kind:
        if self._written is not None and type(value) is str and is_json_text(value):
            return JSON_TEXT
        return _kind_of(value, place, below=False)


def with_json(columns: Mapping[str, Any], as_json: Collection[str]) -> dict[str, Any]:
    """The columns, those of `as_json` as JSON text; null stays null."""
    return {
        name: json.dumps(value, ensure_ascii=False) if name in as_json and value is not None else value
        for name, value in columns.items()
    }


def is_json_text(value: str) -> bool:
    """Whether a text is a list or an object in JSON, as `with_json` writes it."""
    if value[:1] not in ("[", "{"):
        return False
    try:
        strict_json(value)
    except (ValueError, RecursionError):
        return False
    return True


def special_text(value: str) -> str:
    """`JSON_TEXT` or `DATES` for such a text, and nothing for any other."""
    if is_json_text(value):
        return JSON_TEXT
    return DATES if _DATE.fullmatch(value) is not None else ""


def _kind_of(value: Any, place: str, *, below: bool = True) -> _Kind:
    if type(value) is int:
        return "whole numbers" if abs(value) <= 2**53 else _LARGE
    if type(value) is str and below and _DATE.fullmatch(value) is not None:
        raise _Mixed(f"{shown(place)} holds dates")
    if type(value) in _WORDS:
        return _WORDS[type(value)]
    if isinstance(value, dict):
        _check_keys(value, place)
        return {name: _kind_of(each, f"{place}.{name}") for name, each in value.items()}
    if None in value:
        raise _Mixed(f"{shown(place)} has a null among the items of a list")
    item: _Kind = None
    for each in value:
        item = _merged(item, _kind_of(each, f"{place}[]"), f"{place}[]")
    return [item]


def _merged(one: _Kind, other: _Kind, place: str) -> _Kind:
    """The kind that holds both. Raises _Mixed."""
    if one == other or other is None:
        return one
    if one is None:
        return other
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0], f"{place}[]")]
    if isinstance(one, dict) and isinstance(other, dict):
        names = {**one, **other}
        _check_keys(names, place)
        return {name: _merged(one.get(name), other.get(name), f"{place}.{name}") for name in names}
    if isinstance(one, str) and isinstance(other, str):
        if {one, other} == _NUMBERS:
            return "decimal numbers"
        if {one, other} == _WHOLE:
            return _LARGE
        if {one, other} == {"text", JSON_TEXT}:
            return "text"
    raise _Mixed(f"{shown(place)} holds {_told(one)} and {_told(other)}")


def _check_keys(names: Iterable[str], place: str) -> None:
    names = list(names)
    if len(names) > MOST_KEYS:
        raise _Mixed(f"{shown(place)} has more than {MOST_KEYS:,} different keys")
    # imagefolder takes it for the name of a picture, at any depth.
    if any(name.endswith(_PICTURE_NAMES) for name in names):
        raise _Mixed(f"{shown(place)} has a key file_name")


def _told(kind: _Kind) -> str:
    if isinstance(kind, list):
        return "lists"
    return "objects" if isinstance(kind, dict) else str(kind)


def _empty(kind: _Kind, place: str) -> str | None:
    """The place of an object that never has a key, for which parquet has no type."""
    if isinstance(kind, list):
        return _empty(kind[0], f"{place}[]")
    if isinstance(kind, dict):
        below = (_empty(each, f"{place}.{name}") for name, each in kind.items())
        return next((found for found in below if found is not None), None) if kind else shown(place)
    return None
