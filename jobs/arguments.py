"""A pipeline's further arguments as one text: canonical JSON, which a request can hash and a table hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from jobs.strict_json import strict_json

NO_ARGUMENTS: Final = "{}"
_EXACT: Final = 2.0**53
"""Whole numbers below it are the same as floats."""


def arguments_text(value: object) -> str:
    """The canonical JSON of a mapping of arguments, given as a mapping or as JSON text.

    Keys are sorted, nothing is spaced, and 4.0 is written 4, so that equal arguments are equal texts; what is
    at a pipeline's default stays. Raises ValueError that says what is wrong with the value, and the remedy.
    """
    if isinstance(value, str):
        try:
            value = strict_json(value)
        except ValueError:
            raise ValueError('must be a mapping, as YAML or as JSON: {"max_sequence_length": 256}') from None
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of the pipeline's arguments to their values")
    plain = {_name(name): _plain(name, one) for name, one in value.items()}
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a canonical text, whole numbers as int."""
    found: dict[str, Any] = json.loads(text)
    return found


def joined(text: str, single: Mapping[str, Any]) -> str:
    """A canonical text with single arguments, each as `argument_value` gives it, in the place of its own."""
    return arguments_text(arguments_of(text) | dict(single))


def argument_value(value: object) -> Any:
    """One argument's canonical value: 4 for 4.0. Raises ValueError that says what is wrong with it."""
    if isinstance(value, (list, tuple)):
        if any(isinstance(one, (list, tuple, dict)) for one in value):
            raise ValueError("must not hold lists in a list")
        return [argument_value(one) for one in value]
    if value is None or isinstance(value, (bool, int)):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("must fit in 64 bits")
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError("must be finite")
        return int(value) if value.is_integer() and abs(value) < _EXACT else value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair: remove it") from None
        if "\0" in value:
            raise ValueError("holds the character NUL: remove it")
        return value
    raise ValueError("must be a number, true or false, text, null, or a list of these")


def argument_of_text(text: str) -> Any:
    """One argument's value from a cell that holds text: what JSON it is, else the text itself.

    Raises ValueError as `argument_value` does.
    """
    try:
        value = strict_json(text)
    except ValueError:
        value = text
    return argument_value(value)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{name}: is no name of an argument")
    return name


def _plain(name: object, value: object) -> Any:
    try:
        return argument_value(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
