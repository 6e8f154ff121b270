"""What a row of a prompt file may say: exactly what a prompt in the manifest may.

The rules are those of `PromptLine`. A row that is plainly right is let through without pydantic, which is ten
times as fast; pydantic checks every other row, and its errors say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.arguments import argument_of_text, argument_value
from jobs.bounds import plain_text
from jobs.columns import plain_cell
from jobs.errors import ManifestError
from jobs.wording import shortened
from producer.manifest.line import Line, line_of
from producer.manifest.parts import ROW_VALUES, DefaultSettings, PromptLine, PromptSource, Sweep
from producer.manifest.pipeline_check import PipelineCheck, shown_value
from producer.manifest.problems import Problems
from producer.manifest.relations import ColumnKinds, last_seed_trouble
from producer.manifest.single_arguments import argument_named, given_twice
from producer.manifest.wrong_values import unknown_key

_PLAIN: Mapping[str, Callable[[Any], Any]] = {name: values.plain for name, values in ROW_VALUES.items()}
"""For each field, a function that turns a value that is surely right into what PromptLine makes of it, and
any other value into None."""
_OF_TEXT: Mapping[str, Callable[[str], Any]] = {name: values.of_text for name, values in ROW_VALUES.items()}
"""For each field, what a cell of text says."""
_NO_ARGUMENTS = ROW_VALUES.keys() - {"arguments"} | {"columns"}
"""What a row says that gives no argument of the pipeline's call."""
_MOST_TAKEN = 10_000
"""Combinations of settings that are remembered as right."""


class RowReader:
    """Makes lines of the rows of one file."""

    def __init__(
        self,
        file: Path,
        source: PromptSource,
        names: Mapping[str, str],
        defaults: DefaultSettings,
        sweep: Sweep,
        kinds: ColumnKinds,
        *,
        texts: bool,
        check: PipelineCheck | None = None,
    ) -> None:
        """`names`: what the file calls our fields -> the fields. `texts`: every value is a text, and an empty
        one is none. `check` says what the model's class does not take."""
        self._file = file
        self._names, self._defaults, self._kinds = names, defaults, kinds
        self._swept = sweep.swept()
        self._renamed, self._fields = source.fields.values(), source.fields
        self._columns, self._ignore_others, self._texts = source.columns, source.ignore_others, texts
        self._check = check
        self._jpeg = None if check is None else check.jpeg
        # A prompt that may be too long for a JPEG is not plainly right.
        self._most = None if self._jpeg is None else self._jpeg.surely
        self._taken: set[tuple[Any, ...]] = set()
        self._seeds_given = defaults.seed is not None or "seed" in self._swept

    def names_trouble(self, names: Collection[str]) -> str | None:
        """Why no row with these columns can be read, with the remedy; None when rows can."""
        unknown = next((name for name in names if not self._has_use(name)), None)
        if unknown is not None:
            return self._unknown(unknown)
        lacking = [name for name in (*self._columns, *self._renamed) if name not in names]
        if "prompt" not in {self._names.get(name) for name in names}:
            lacking += [name for name, field in self._names.items() if field == "prompt"]
        return f"{lacking[0]}: there is no such column" if lacking else None

    def prompt_alone(self, row: Mapping[str, Any]) -> str | None:
        """The prompt of a row that is plainly right and says nothing else; None for any other."""
        if len(row) != 1 or self._seeds_given:
            return None
        [(name, value)] = row.items()
        if self._most is not None and isinstance(value, str) and len(value) > self._most:
            return None
        return plain_text(value) if self._names.get(name) == "prompt" else None

    def wants(self, name: str) -> bool:
        """Whether a column of this name is read where others are ignored."""
        return self._field(name) is not None or name in self._columns

    def line(self, row: Mapping[str, Any], number: int) -> Line | ManifestError:
        """The row as a line, or all that is wrong with it."""
        values: dict[str, Any] = {}
        for name, value in row.items():
            field = self._names.get(name)
            if field is None and (field := self._single(name)) is None:
                if not self._has_use(name):
                    return ManifestError(self._unknown(name))
                continue
            if field != "prompt":
                if value is None or (self._texts and value == ""):
                    continue
                if field in self._swept or (field == "seeds" and "seed" in self._swept):
                    return ManifestError(f"{name}: the manifest's `sweep` gives it too: remove one of them")
                if self._texts:
                    try:
                        values[field] = _OF_TEXT.get(field, argument_of_text)(value)
                    except (ManifestError, ValueError) as error:
                        return ManifestError(f"{name} = {shortened(value)}: {error}")
                    continue
            values[field] = value
        doubtful = False
        for field, value in values.items():
            plain = _PLAIN.get(field, _plain_argument)(value)
            if plain is None:
                doubtful = True
            else:
                values[field] = plain
        if self._columns:
            values["columns"] = columns = {
                name: value for name in self._columns if (value := row.get(name)) is not None
            }
            doubtful = doubtful or any(plain_cell(value) is None for value in columns.values())
        if (
            doubtful
            or "prompt" not in values
            or ("seeds" in values and values.keys() & {"seed", "images_per_prompt"})
        ):
            try:
                asked = PromptLine.model_validate(values)
            except ValidationError as error:
                return ManifestError(self._in_words(error, row))
            values = {name: getattr(asked, name) for name in asked.model_fields_set}
        if not values.keys() <= _NO_ARGUMENTS:
            for path, other in given_twice(values, self._swept):
                place = "the manifest's `sweep`" if other == "sweep" else f"`{other}`"
                where = _called(path, self._theirs(row))
                return ManifestError(f"{where}: {place} gives it too: remove one of them")
        line = line_of(values, self._defaults)
        first = line.seeds[0] if isinstance(line.seeds, range) else None
        if "seed" in self._swept:
            first = max(self._swept["seed"])
        if first is not None and (trouble := last_seed_trouble(first, line.images)) is not None:
            return ManifestError(trouble)
        if line.settings and (refused := self._refused(line.settings, row)) is not None:
            return ManifestError(refused)
        if self._jpeg is not None and (trouble := self._jpeg.trouble(line)) is not None:
            return ManifestError(trouble)
        for name, value in line.columns.items():
            if (trouble := self._kinds.trouble(name, value, f"in {self._file}:{number}")) is not None:
                return ManifestError(f"{name}: {trouble}")
        return line

    def _refused(self, settings: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        """What the model's class does not take of a row's settings; None when it takes them."""
        key = tuple(settings.items())
        if self._check is None or key in self._taken:
            return None
        theirs = self._theirs(row)
        troubles = [
            f"{_called(trouble.path, theirs)} = {shown_value(trouble.value)}: {trouble.what}"
            for trouble in self._check.troubles(settings)
        ]
        if troubles:
            return "; ".join(troubles)
        if len(self._taken) < _MOST_TAKEN:
            self._taken.add(key)
        return None

    def _has_use(self, name: str) -> bool:
        return self.wants(name) or self._ignore_others

    def _field(self, name: str) -> str | None:
        """Our field of a column of the file; None for a column that is none."""
        field = self._names.get(name)
        return self._single(name) if field is None else field

    def _single(self, name: str) -> str | None:
        """The name of a column that is a single argument's by itself; None for any other."""
        if argument_named(name) is None or name in self._fields or name in self._columns:
            return None
        return name

    def _theirs(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What the file calls the fields of a row."""
        return {field: name for name in row if (field := self._field(name)) is not None}

    def _unknown(self, name: str) -> str:
        what = unknown_key(name, {known: known for known in self._names})
        return f"{shortened(name)}: {what} (or list it in `columns`, or set `ignore_others: true`)"

    def _in_words(self, error: ValidationError, row: Mapping[str, Any]) -> str:
        """The problems, under the file's own names."""
        theirs = {"prompt": "prompt"} | self._theirs(row)
        problems = Problems(str(self._file))
        problems.add_errors(error, PromptLine)
        texts = []
        for problem in problems:
            field, *rest = problem.path
            path = rest if field == "columns" else (theirs[str(field)], *rest)
            texts.append(replace(problem, path=tuple(path)).text)
        return "; ".join(texts)


def _called(path: tuple[str, ...], theirs: Mapping[str, str]) -> str:
    """A setting, or one argument of it, as the file calls it."""
    single = theirs.get(".".join(path))
    return ".".join((theirs.get(path[0], path[0]), *path[1:])) if single is None else single


def _plain_argument(value: Any) -> Any:
    """One argument's value that is surely right; None for any other."""
    try:
        return argument_value(value)
    except ValueError:
        return None
