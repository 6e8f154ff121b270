"""What to say of columns of a prompt file that mean nothing: all of them at once, with the YAML to write."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

from jobs.columns import column_trouble
from jobs.wording import shortened, some
from producer.manifest.parts import ROW_FIELDS
from producer.manifest.prompt_source import PromptSource
from producer.manifest.source_yaml import in_yaml, keys_given
from producer.manifest.wrong_values import meant_key

_NAMELESS: Final = ("", "Unnamed: ", "__index_level_")
"""How columns without a name are called: in a table, by pandas' reader, and in a .parquet of pandas."""
_MOST: Final = 30
"""Names that are listed in YAML, and characters of each; beyond, all are left out."""
_LONGEST: Final = 60


def named_within(name: str, value: object) -> list[str]:
    """The paths in an object that seems to hold the prompt; any other column's name alone."""
    if isinstance(value, dict) and any(meant_key(key, ("prompt",), close=False) for key in value):
        return [f"{name}.{key}" for key in value]
    return [name]


def unknown_columns(source: PromptSource, names: Collection[str], taken: Collection[str]) -> str:
    """The message, on one line. `taken`: the fields that the file has under other names."""
    fields, columns = dict(source.fields), dict(source.columns)
    meant: list[str] = []
    for name in names:
        key = meant_key(name.rpartition(".")[2], ROW_FIELDS)
        if key is None:
            columns[_new_name(name, columns)] = name
            continue
        meant.append(key)
        if key in taken or key in fields or not _surely(name, key):
            columns[_new_name(name, columns)] = name
        else:
            fields[key] = name
    said = f"{some([_called(name) for name in names], _MOST)}: no such key{'s' if len(names) > 1 else ''}"
    if meant:
        said += f": did you mean {', '.join(dict.fromkeys(meant))}?"
    given = keys_given(source) | ({"fields": fields} if fields else {})
    left_out = in_yaml({**given, "ignore_others": True})
    before = f"{said} Write" if meant else f"{said}: write"
    if len(columns) == len(source.columns):
        return f"{before} prompts_from: {in_yaml(given)}"
    others = [_called(name) for name in columns.values() if name not in source.columns.values()]
    them = "it" if len(names) == 1 else "them" if len(others) == len(names) else some(others)
    if len(names) > _MOST or any(len(name) > _LONGEST for name in names):
        return f"{before} prompts_from: {left_out} to leave out what means nothing"
    kept = list(columns) if all(new == name for new, name in columns.items()) else columns
    return (
        f"{before} prompts_from: {in_yaml({**given, 'columns': kept})} to keep {them} in the metadata, or "
        f"prompts_from: {left_out} to leave {them} out"
    )


def short_unknown(names: Collection[str]) -> str:
    """The message for one row of many."""
    said = some([_called(name) for name in names], _MOST)
    one = "it" if len(names) == 1 else "them"
    return (
        f"{said}: no such key{'s' if len(names) > 1 else ''}: list {one} in `columns`, or set "
        "`ignore_others: true`"
    )


def _called(name: str) -> str:
    """A column's name in a message, and that it has none."""
    if name == "":
        return "a column without a name"
    nameless = any(name.startswith(one) for one in _NAMELESS[1:])
    return f"{shortened(name)} (a column without a name)" if nameless else shortened(name)


def _surely(name: str, key: str) -> bool:
    """Whether a column so probably is that field that YAML can say so."""
    _, dot, inner = name.casefold().rpartition(".")
    if len(inner) == 1 or (dot and "prompt" not in key):
        # A letter may mean anything, and the width in an object is mostly that of something else.
        return False
    return (
        key.startswith("arguments.")
        or difflib.SequenceMatcher(None, inner, key).ratio() > 0.9
        or meant_key(inner, (key,), close=False) == key
    )


def _new_name(name: str, others: Collection[str]) -> str:
    """What a column may be called in the metadata, beside others."""
    usual = (name, f"{name}_column") if name else ("row_name",)
    for new in usual:
        if new not in others and column_trouble(new, None) is None:
            return new
    return f"column_{len(others) + 1}"
