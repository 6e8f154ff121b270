"""What no field of a manifest shows alone: nulls that would hide a default, settings said twice, seeds that
run out, columns of two kinds."""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import prod
from typing import Any, Final

from jobs.bounds import MAX_SEED
from producer.manifest.document import REFUSED
from producer.manifest.problems import Problems
from producer.manifest.single_arguments import argument_named, given_twice
from producer.manifest.written import TEMPLATE_COLUMNS

_MOST_COMBINATIONS: Final = 100_000
"""The most combinations of a sweep's values: one template for each is held while images are made."""


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


def find_conflicts(raw: Mapping[str, Any], problems: Problems, line_keys: Container[str]) -> None:
    """Adds all of these in a manifest as it was read to `problems`."""
    defaults, swept = _mapping(raw, "settings"), _mapping(raw, "sweep")
    for key, values in swept.items():
        if values is None and argument_named(key) is None:
            problems.add(("sweep", key), "has no value: remove the key")
        if "arguments" in swept and argument_named(key) is not None:
            problems.add(("sweep", key), "is in `arguments` too: remove one of them", of_key=True)
    combinations = prod(len(values) for values in swept.values() if isinstance(values, list))
    if combinations > _MOST_COMBINATIONS:
        what = f"gives each prompt {combinations:,} combinations, and {_MOST_COMBINATIONS:,} is the most"
        problems.add(("sweep",), f"{what}: sweep fewer values", of_key=True)
    seeds = list(swept["seed"]) if isinstance(swept.get("seed"), list) else []
    highest = max((seed for seed in seeds if type(seed) is int), default=None)
    if raw.get("lora_folder") is not None and "syntax" in swept:
        what = "excludes `lora_folder`: under one of them <lora:…> is a LoRA, under another it is words"
        problems.add(("sweep", "syntax"), f"{what}: sweep no syntax", of_key=True)
    lines = raw.get("prompts")
    kinds = ColumnKinds()
    syntax = raw.get("syntax")
    dynamic = syntax == "dynamic" or (isinstance(syntax, list) and "dynamic" in syntax)
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        if not isinstance(line, dict):
            continue
        for key, value in line.items():
            path = ("prompts", index, key)
            if value is None and key in line_keys and key not in ("prompt", "seed"):
                problems.add(path, "has no value: remove the key, and `settings` counts")
            elif key in swept or (key == "seeds" and "seed" in swept):
                problems.add(path, "is in `sweep` too: remove one of them", of_key=True)
        for inner, other in given_twice(line, swept):
            what = f"is in `{other}` too: remove one of them"
            problems.add(("prompts", index, *inner), what, of_key=True)
        seed = line.get("seed", defaults.get("seed") if highest is None else highest)
        count = line.get("images_per_prompt", defaults.get("images_per_prompt", 1))
        if "seeds" not in line and type(seed) is int and type(count) is int:
            trouble = last_seed_trouble(seed, count)
            if trouble is not None:
                problems.add(("prompts", index, "seed"), trouble, value=str(seed))
        if dynamic and "variables" in line:
            what = "and `syntax: dynamic` exclude each other: write {a|b}, or a wildcard"
            problems.add(("prompts", index, "variables"), what, of_key=True)
        for name, value in _mapping(line, "columns").items():
            if dynamic and name in TEMPLATE_COLUMNS:
                what = "is what `syntax: dynamic` writes: choose another name"
                problems.add(("prompts", index, "columns", name), what, of_key=True)
            at = ("prompts", index, "columns", name)
            trouble = kinds.trouble(name, value, f"on line {problems.line(at)}")
            if trouble is not None:
                problems.add(at, trouble)
    count = defaults.get("images_per_prompt", 1)
    if highest is not None and type(count) is int:
        trouble = last_seed_trouble(highest, count)
        if trouble is not None:
            problems.add(("sweep", "seed", seeds.index(highest)), trouble, value=str(highest))


def _mapping(around: Mapping[str, Any], key: str) -> dict[str, Any]:
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
