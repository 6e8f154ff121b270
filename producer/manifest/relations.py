"""What no field of a manifest shows alone: nulls that would hide a default, settings said twice, seeds that
run out, columns of two kinds."""

from __future__ import annotations

from collections.abc import Container, Iterator
from math import prod
from typing import Any, Final

from jobs.bounds import MAX_SEED
from producer.manifest.yaml_marks import REFUSED, Document, Problem

_MOST_COMBINATIONS: Final = 100_000
"""Of a sweep's values: what all of them have in common is held while images are made."""


class ColumnKinds:
    """Holds each of the user's columns to one kind of value.

    `datasets.load_dataset` types a column by its first rows and fails at, or truncates, later ones of another
    kind.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str]] = {}

    def trouble(self, name: str, value: object, place: str) -> str | None:
        """Why `value` is of another kind than the column's first one, with the remedy; None when it is not.

        `place` is where it stands: "on line 3".
        """
        kind = _kind(value)
        if kind is None:
            return None
        first, first_place = self._kinds.setdefault(name, (kind, place))
        if kind == first:
            return None
        numbers = {kind, first} == {"a whole number", "a decimal number"}
        remedy = "write 1.0 for 1" if numbers else "give a column one kind"
        return f"is {kind}, but {first} {first_place}: {remedy}"


def last_seed_trouble(seed: int, count: int) -> str | None:
    """Why `count` pictures cannot begin at `seed`, with the remedy; None when they can."""
    if seed <= MAX_SEED < seed + count - 1:
        return f"the last of {count} seeds is above 2**63-1: start lower"
    return None


def problems_between_lines(
    raw: dict[str, Any], document: Document, line_keys: Container[str]
) -> Iterator[Problem]:
    """All of these in a manifest as it was read."""
    defaults, swept = _mapping(raw, "settings"), _mapping(raw, "sweep")
    for key, values in swept.items():
        if values is None:
            yield Problem(*document.place(("sweep", key)), f"sweep.{key}: has no value: remove the key")
        if key in defaults:
            place = document.place(("settings", key), of_key=True)
            yield Problem(*place, f"settings.{key}: stands in `sweep` too: remove one of them")
    combinations = prod(len(values) for values in swept.values() if isinstance(values, list))
    if combinations > _MOST_COMBINATIONS:
        what = f"gives each prompt {combinations:,} combinations, and {_MOST_COMBINATIONS:,} is the most"
        yield Problem(*document.place(("sweep",), of_key=True), f"sweep: {what}: sweep fewer values")
    seeds = list(swept["seed"]) if isinstance(swept.get("seed"), list) else []
    highest = max((seed for seed in seeds if type(seed) is int), default=None)
    lines = raw.get("prompts")
    kinds = ColumnKinds()
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        if not isinstance(line, dict):
            continue
        for key, value in line.items():
            where = f"prompts[{index}].{key}"
            if value is None and key in line_keys and key not in ("prompt", "seed"):
                place = document.place(("prompts", index, key))
                yield Problem(*place, f"{where}: has no value: remove the key, and `settings` counts")
            elif key in swept or (key == "seeds" and "seed" in swept):
                place = document.place(("prompts", index, key), of_key=True)
                yield Problem(*place, f"{where}: stands in `sweep` too: remove one of them")
        seed = line.get("seed", defaults.get("seed", highest))
        count = line.get("images_per_prompt", defaults.get("images_per_prompt", 1))
        if "seeds" not in line and type(seed) is int and type(count) is int:
            trouble = last_seed_trouble(seed, count)
            if trouble is not None:
                place = document.place(("prompts", index, "seed"))
                yield Problem(*place, f"prompts[{index}].seed = {seed}: {trouble}")
        for name, value in _mapping(line, "columns").items():
            path = ("prompts", index, "columns", name)
            row, column = document.place(path)
            trouble = kinds.trouble(name, value, f"on line {row}")
            if trouble is not None:
                yield Problem(row, column, f"prompts[{index}].columns.{name}: {trouble}")
    count = defaults.get("images_per_prompt", 1)
    if highest is not None and type(count) is int:
        trouble = last_seed_trouble(highest, count)
        if trouble is not None:
            place = document.place(("sweep", "seed", seeds.index(highest)))
            yield Problem(*place, f"sweep.seed = {highest}: {trouble}")


def _mapping(around: dict[str, Any], key: str) -> dict[str, Any]:
    value = around.get(key)
    return value if isinstance(value, dict) else {}


def _kind(value: object) -> str | None:
    """What a table calls a column's value; None for null, which fits any."""
    if value is None or value is REFUSED:
        return None
    if isinstance(value, bool):
        return "true or false"
    kinds = {int: "a whole number", float: "a decimal number", str: "text", list: "a list"}
    return kinds.get(type(value), "a mapping")
