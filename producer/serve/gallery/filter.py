"""Which images a gallery shows: conditions on columns, the same for a table's columns and for records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jobs.request import IMAGE_SETTINGS

PROMPT: Final = "prompt"
_LONGEST: Final = 1_000
"""Characters of what is searched for."""


class WrongFilter(ValueError):
    """What was asked for is no condition; the message says why."""


class Condition(NamedTuple):
    """What holds for a column's value."""

    column: str
    """As metadata call it; PROMPT for the text."""
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What all images have in common that are shown; nothing given: every image that is there."""

    text: str = ""
    """Part of the prompt, in any case."""
    scheduler: str = ""
    seed: int | None = None
    flagged: bool = False
    """Only pictures with something odd about them."""
    failed: bool = False
    """Only what failed; otherwise only what is there."""
    column: str = ""
    value: str = ""
    """What the column is equal to, as text."""

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Filter:
        """The filter of a page's address. Raises WrongFilter for a value that is none."""
        texts = {name: query.get(name, "") for name in ("text", "scheduler", "column", "value")}
        for name, text in texts.items():
            if len(text) > _LONGEST:
                raise WrongFilter(f"{name}: has more than {_LONGEST:,} characters")
        if texts["value"] and not texts["column"]:
            raise WrongFilter("column: is missing: name the column that has the value")
        seed = query.get("seed", "").strip()
        if seed and not (seed.isascii() and seed.isdecimal() and len(seed) <= 20):
            raise WrongFilter(f"seed = {seed[:40]}: must be a whole number from 0 on")
        return cls(
            **texts,
            seed=int(seed) if seed else None,
            flagged=query.get("flagged", "") == "1",
            failed=query.get("failed", "") == "1",
        )

    def query(self) -> dict[str, str]:
        """What a page's address says of it."""
        return {
            **{
                name: text
                for name in ("text", "scheduler", "column", "value")
                if (text := getattr(self, name))
            },
            **({} if self.seed is None else {"seed": str(self.seed)}),
            **({"flagged": "1"} if self.flagged else {}),
            **({"failed": "1"} if self.failed else {}),
        }

    @property
    def is_empty(self) -> bool:
        """Whether every picture is shown."""
        return self == Filter()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What holds besides whether the image failed."""
        found = []
        if self.text:
            part = self.text.lower()
            found.append(Condition(PROMPT, lambda value: isinstance(value, str) and part in value.lower()))
        if self.scheduler:
            name = self.scheduler.lower()
            found.append(
                Condition("scheduler", lambda value: isinstance(value, str) and value.lower() == name)
            )
        if self.seed is not None:
            seed = self.seed
            found.append(Condition("seed", lambda value: value == seed))
        if self.flagged:
            found.append(Condition("flagged", lambda value: value is not None))
        if self.column:
            wanted = self.value
            found.append(Condition(self.column, lambda value: _equals(value, wanted)))
        return tuple(found)

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether the conditions hold for a record."""
        return all(one.holds(value_of(record, one.column)) for one in self.conditions)


def value_of(record: Mapping[str, Any], column: str) -> Any:
    """The record's value; a setting that it leaves out is at its default, what it has not is None."""
    if column == PROMPT:
        return record.get("text")
    return record[column] if column in record else default_of(column)


def default_of(column: str) -> Any:
    """What records that have no such column say of it."""
    setting = IMAGE_SETTINGS.get(column)
    return None if setting is None or setting.default is ... else setting.default


def _equals(value: Any, wanted: str) -> bool:
    """Whether a value is what a person wrote: `7.5`, `7` for 7.0, `true`, nothing for null."""
    if value is None:
        return wanted in ("", "null")
    if isinstance(value, str):
        return value == wanted
    if isinstance(value, bool):
        return wanted == str(value).lower()
    if isinstance(value, (int, float)):
        try:
            return int(wanted) == value if isinstance(value, int) else float(wanted) == value
        except ValueError:
            return False
    return json.dumps(value, ensure_ascii=False) == wanted
