"""Columns of metadata by the names that a person calls them."""

from __future__ import annotations

import difflib
from typing import Any

from jobs.arguments import NO_ARGUMENTS, arguments_of
from jobs.output.lines import columns_of
from jobs.request import IMAGE_SETTINGS
from producer.export.source import Record

_ARGUMENTS = "arguments"


def value_of(record: Record, name: str) -> Any:
    """The record's value of a column; `prompt` is its text, `arguments.eta` one of its arguments.

    A setting that the record leaves out is at its default; an argument, or a setting without a default, is
    None then. For any other column that the record does not have, raises LookupError: "has no column 'sed'
    (do you mean 'seed'?); it has …".
    """
    if name == "prompt":
        return record["text"]
    if name in record:
        return record[name]
    if name in IMAGE_SETTINGS:
        default = IMAGE_SETTINGS[name].default
        return None if default is ... else default
    setting, dot, argument = name.partition(".")
    if setting == _ARGUMENTS and dot:
        return arguments_of(record.get(_ARGUMENTS, NO_ARGUMENTS)).get(argument)
    alike = difflib.get_close_matches(name, record, 1)
    meant = f" (do you mean {alike[0]!r}?)" if alike else ""
    raise LookupError(f"has no column {name!r}{meant}; it has {', '.join(record)}")


def given_columns(record: Record) -> Record:
    """The user's own columns that the record has a value for."""
    return {name: value for name, value in columns_of(record).items() if value is not None}
