"""Which images a gallery shows: conditions on columns, the same for a table's columns and for records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jobs.columns import RENDERED_PREFIX
from jobs.errors import ManifestError
from jobs.output.column_kinds import Kind
from jobs.request import IMAGE_SETTINGS

PROMPT: Final = "prompt"
_LONGEST: Final = 1_000
"""Characters of what is searched for."""
_TEXTS: Final = ("text", "scheduler", "column", "value")
_SWITCHES: Final = ("flagged", "failed")
FIELDS: Final = (*_TEXTS, "seed", *_SWITCHES)
"""What an address says of a filter."""
_ELSE: Final = frozenset({"shard", "position", "count", "before", "way", "late", "tail", "found", "absent"})
"""What else an address says."""
OF_RECORDS: Final[Mapping[str, Kind]] = {
    "text": "string", "file_name": "string", "image_id": "string", "index": "int64", "id": "string",
    "job_id": "string", "flagged": "string", "prompt_cut": "string", "sha256": "string",
    **{f"{RENDERED_PREFIX}{name}": "string" for name in ("precision", "device", "versions", "mode")},
    f"{RENDERED_PREFIX}rows": "int64",
}  # fmt: skip
"""The columns of all records besides the settings, and what they hold."""
_WORDS: Final[Mapping[str, str]] = {
    "int64": "a whole number", "float64": "a number", "bool": "true or false",
}  # fmt: skip


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
        unknown = next((name for name in query if name not in {*FIELDS, *_ELSE}), None)
        if unknown is not None:
            known = ", ".join(name for name in FIELDS if name not in ("column", "value"))
            raise WrongFilter(
                f"{_cut(unknown)}: is no condition; there are {known}, and column with value for any column"
            )
        texts = {name: query.get(name, "") for name in _TEXTS}
        for name, text in texts.items():
            if len(text) > _LONGEST:
                raise WrongFilter(f"{name}: has more than {_LONGEST:,} characters")
        if texts["value"] and not texts["column"]:
            raise WrongFilter("column: is missing: name the column that has the value")
        for name in _SWITCHES:
            if query.get(name, "") not in ("", "0", "1"):
                raise WrongFilter(f"{name} = {_cut(query[name])}: must be 1, or be left out")
        flagged, failed = (query.get(name, "") == "1" for name in _SWITCHES)
        if flagged and failed:
            raise WrongFilter("flagged and failed exclude each other: what failed has no picture")
        seed = query.get("seed", "").strip()
        return cls(
            text=texts["text"],
            scheduler=_meant("scheduler", texts["scheduler"].strip()) if texts["scheduler"].strip() else "",
            column=texts["column"],
            value=_meant(texts["column"], texts["value"]),
            seed=int(_meant("seed", seed)) if seed else None,
            flagged=flagged,
            failed=failed,
        )

    def query(self) -> dict[str, str]:
        """What a page's address says of it."""
        return {
            **{name: text for name in _TEXTS if (text := getattr(self, name))},
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
            name = self.scheduler
            found.append(Condition("scheduler", lambda value: value == name))
        if self.seed is not None:
            seed = self.seed
            found.append(Condition("seed", lambda value: value == seed))
        if self.flagged:
            found.append(Condition("flagged", lambda value: value is not None))
        if self.column:
            wanted = self.value
            column = PROMPT if self.column == "text" else self.column
            found.append(Condition(column, lambda value: _equals(value, wanted)))
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


def unlike(kind: Kind, value: str) -> str:
    """What a column of this kind holds, if a value is none of it; empty as a rule."""
    if value in ("", "null") or not isinstance(kind, str) or kind not in _WORDS:
        return ""
    if kind == "bool":
        return "" if value in ("true", "false") else _WORDS[kind]
    try:
        number = float(value)
    except ValueError:
        return _WORDS[kind]
    return "" if kind == "float64" or number.is_integer() else _WORDS[kind]


def _meant(column: str, value: str) -> str:
    """The value as records have it: a scheduler's canonical name. Raises WrongFilter for one that the column
    cannot have, as far as that is known without the output."""
    setting = IMAGE_SETTINGS.get(column)
    if setting is None:
        words = unlike(OF_RECORDS.get(column), value)
        if words:
            raise WrongFilter(f"{column} = {_cut(value)}: must be {words}")
        return value
    if value in ("", "null") and setting.default is None:
        return value
    try:
        meant = setting.values.of_text(value)
    except ManifestError:
        meant = None
    if meant is None or not setting.is_right(meant):
        raise WrongFilter(f"{column} = {_cut(value)}: must be {setting.words}")
    right = setting.meant(meant)
    return right if isinstance(right, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


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
            return bool(int(wanted) == value)  # exact beyond 2**53
        except ValueError:
            pass
        try:
            return float(wanted) == value
        except ValueError:
            return False
    return json.dumps(value, ensure_ascii=False) == wanted
