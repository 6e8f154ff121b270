"""What the columns of a prompt file are: fields of a prompt under one name or another, kept, or declined."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from jobs.wording import shortened, some
from producer.manifest.parts import ROW_FIELDS
from producer.manifest.prompt_source import PromptSource
from producer.manifest.single_arguments import argument_named
from producer.manifest.source_yaml import in_yaml
from producer.prompt_files.unknown_columns import unknown_columns

UNKNOWN: Final = ""
"""In place of a field: the column means nothing."""
_ALIASES: Final = {name: name for name in ROW_FIELDS} | {
    "steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
}
"""What A1111 and DiffusionDB call our fields, folded. A name that may mean something else is none: a `step`
is often a number in a series."""
_MOST_KNOWN = 10_000
"""Names that are remembered."""


class ColumnRoles:
    """Tells what each column of one file is."""

    def __init__(self, file: Path, source: PromptSource, names: Mapping[str, str]) -> None:
        """`names`: what the file calls our fields -> the fields, without aliases."""
        self._file, self._source, self._names = file, source, names
        self._explicit = frozenset(source.fields.values())
        self._kept = frozenset(source.columns.values())
        self._ignored = frozenset(source.ignore)
        self.known: dict[str, str | None] = {}
        """Columns that were met -> their field; None for those that are kept or left out."""
        self.implied: dict[str, str] = {}
        """Columns that were met and mean a field although the manifest does not say so -> the field."""
        self.doubled = False
        """Whether two names of one field were met."""

    def field(self, name: str) -> str | None:
        """The column's field; None for one that is kept or left out, UNKNOWN for one that means nothing."""
        if name in self.known:
            return self.known[name]
        field = self._field(name)
        if field == UNKNOWN or len(self.known) >= _MOST_KNOWN:
            return field
        if field is not None:
            self.doubled = self.doubled or field in self.known.values()
            if name not in self._explicit:
                self.implied[name] = field
        self.known[name] = field
        return field

    def wants(self, name: str) -> bool:
        """Whether the column's values are used."""
        return bool(self._field(name)) or name in self._kept

    def trouble(self, names: Collection[str]) -> str | None:
        """Why no row with these columns can be read, with the remedy; None when rows can."""
        unknown = [name for name in names if self.field(name) == UNKNOWN]
        if unknown:
            return self.unknown(unknown)
        twice = self.twice(names)
        if twice is not None:
            return twice
        named = (*self._source.columns.values(), *self._source.fields.values(), *self._source.ignore)
        for name in named:
            if name not in names:
                return f"{name or 'a column without a name'}: there is no such column"
        if "prompt" in map(self.field, names):
            return None
        others = some([shortened(name) for name in names if name], 20)
        remedy = "name it, as in fields: {prompt: COLUMN}"
        return f"prompt: there is no such column: {remedy} (there are {others})"

    def unknown(self, names: Collection[str]) -> str:
        """What to say of columns that mean nothing, with the YAML to write."""
        taken = {field for field in self.known.values() if field}
        return unknown_columns(self._source, names, taken)

    def twice(self, names: Iterable[str]) -> str | None:
        """What to say of two columns of one field; None when there are none."""
        met: dict[str, str] = {}
        for name in names:
            field = self.field(name)
            if field and met.setdefault(field, name) != name:
                other = in_yaml([name if met[field] == field else met[field]])
                both = f"{met[field]} and {name} both mean {field}"
                return f"{both}: keep one, as by `ignore: {other}` in the manifest"
        return None

    def never_met(self) -> list[str]:
        """The columns that the manifest declines and that were not there."""
        return [name for name in self._source.ignore if name not in self.known]

    def theirs(self, names: Iterable[str]) -> dict[str, str]:
        """The fields of these columns -> the columns."""
        return {field: name for name in names if (field := self.field(name))}

    def _field(self, name: str) -> str | None:
        if name not in self._explicit:
            if name in self._kept or name in self._ignored:
                return None
            if argument_named(name) is not None and name not in self._source.fields:
                return name
        field = self._names.get(name)
        if field is None:
            alias = _ALIASES.get(folded_name(name))
            field = None if alias in self._source.fields or alias not in self._names.values() else alias
        if field is not None:
            return field
        return None if self._source.ignore_others else UNKNOWN


def folded_name(name: str) -> str:
    """A column's name without case, with one underscore for blanks and dashes: `CFG Scale` -> `cfg_scale`."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
