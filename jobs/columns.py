"""Which names and values a user's own column may have."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Final

from jobs.bounds import plain_text
from jobs.request import REQUEST_FIELDS

if TYPE_CHECKING:
    from pydantic import JsonValue

RENDERED_PREFIX = "rendered_"
INDEX = "index"
"""The metadata's column of the order. Columns of that name exist in outputs from before there was one."""
_OWN_NAMES = frozenset(
    {*REQUEST_FIELDS, "file_name", "file_names", "text", "image_id", "id", "job_id", "flagged", "prompt_cut"}
    | {"sha256"}
)
_FEATURE_NAMES = frozenset({"image", "images"})
"""Names that Hugging Face's imagefolder gives to the pictures themselves."""
MAX_DEPTH: Final = 50


def column_trouble(name: str, value: JsonValue) -> str | None:
    """Why a user's column cannot be in the metadata, with the remedy; None if it can."""
    if name == "":
        return "has no name: give it one"
    if name == INDEX:
        return f"{name!r} is imagemill's own column, the order of the lines: choose another, as row_{name}"
    problem = column_problem(name)
    if problem is not None:
        return f"{problem}: choose another"
    return _storable(name) or _storable(value)


def deeper_than(depth: int, value: object) -> bool:
    """Whether lists and mappings in `value` are nested deeper. Not recursive: it guards recursion."""
    level = [value]
    for _ in range(depth):
        around = [one for one in level if isinstance(one, (list, dict))]
        if not around:
            return False
        level = [part for one in around for part in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, (list, dict)) for one in level)


def column_problem(name: str) -> str | None:
    """Why a user's column cannot have this name in the metadata; None if it can."""
    if name in _OWN_NAMES or name.startswith(RENDERED_PREFIX):
        return f"{name!r} is a name of imagemill's own metadata"
    if name in _FEATURE_NAMES or name.endswith(("_file_name", "_file_names")):
        return f"{name!r} means a picture to Hugging Face's imagefolder"
    return None


def _storable(value: JsonValue) -> str | None:
    """Why a value cannot be stored as JSON in a table; None if it can."""
    if isinstance(value, float) and not isfinite(value):
        return "must be finite: JSON has no inf or nan; use null"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "must fit in 64 bits: write it in quotes"
    if isinstance(value, str):
        if "\x00" in value:
            return "must not hold the character NUL: remove it"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "must not hold half of a surrogate pair: remove it"
    below: Iterator[JsonValue] = iter(())
    if isinstance(value, list):
        below = iter(value)
    elif isinstance(value, dict):
        below = (part for item in value.items() for part in item)
    return next((trouble for part in below if (trouble := _storable(part)) is not None), None)


def plain_cell(value: object) -> object | None:
    """The value if it is a number, a boolean or a text that needs no further check; else None."""
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else None
    if type(value) is float:
        return value if isfinite(value) else None
    return value if type(value) is bool else plain_text(value)
