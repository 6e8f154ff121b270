"""What a row of a prompt file may say: exactly what a prompt in the manifest may.

The rules are those of `PromptLine`. A row that is plainly right is let through without pydantic, which is ten
times as fast; pydantic checks every other row, and its errors say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.arguments import argument_of_text, argument_value
from jobs.bounds import plain_text
from jobs.columns import plain_cell
from jobs.errors import ManifestError
from jobs.pipelines.pipeline_trouble import Trouble
from jobs.request import PICTURES
from jobs.schedulers import scheduler_of_code
from jobs.wording import shortened
from producer.manifest.line import Line, line_of
from producer.manifest.parts import ROW_VALUES, DefaultSettings, PromptLine, Sweep
from producer.manifest.pipeline_check import PipelineCheck, shown_value
from producer.manifest.problems import Problems
from producer.manifest.prompt_source import PromptSource
from producer.manifest.relations import ColumnKinds, last_seed_trouble
from producer.manifest.single_arguments import given_twice
from producer.manifest.source_yaml import key_offer
from producer.prompt_files.column_roles import ColumnRoles
from producer.prompt_files.nested import Paths
from producer.prompt_files.unknown_columns import short_unknown

_PLAIN: Mapping[str, Callable[[Any], Any]] = {name: values.plain for name, values in ROW_VALUES.items()}
"""For each field, a function that turns a value that is surely right into what PromptLine makes of it, and
any other value into None."""
_OF_TEXT: Mapping[str, Callable[[str], Any]] = {name: values.of_text for name, values in ROW_VALUES.items()}
"""For each field, what a cell of text says."""
_NO_ARGUMENTS = ROW_VALUES.keys() - {"arguments"} | {"columns"}
"""What a row says that gives no argument of the pipeline's call."""
_PICTURES = frozenset(PICTURES)
_MOST_TAKEN = 10_000
"""Combinations of settings that are remembered as right, each with whether it switches guidance off."""


class UnknownColumns(ManifestError):
    """A row has columns that mean nothing."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(short_unknown(names))
        self.names = names


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
        self._file, self._source = file, source
        self._defaults, self._kinds = defaults, kinds
        self._swept = sweep.swept()
        self.roles = ColumnRoles(file, source, names)
        self._known = self.roles.known
        self.paths = Paths(
            (*source.fields.values(), *source.columns.values(), *source.ignore),
            names.keys() & ROW_VALUES.keys(),
        )
        self._columns, self._texts = tuple(source.columns.items()), texts
        self._check = check
        # A template is checked once something is drawn from it.
        self._texts_checked = check is not None and not check.templates
        self._jpeg = check.jpeg if check is not None and self._texts_checked else None
        # A prompt that may be too long for a JPEG is not plainly right.
        self._most = None if self._jpeg is None else self._jpeg.surely
        self._taken: dict[tuple[Any, ...], bool] = {}
        self._syntax_given = check is not None and self._texts_checked and not check.only_plain
        # A row that says nothing is wrong for a model that paints from pictures.
        self._bare_is_wrong = check is not None and bool(check.troubles({}))
        self._more_given = (
            defaults.seed is not None or "seed" in self._swept or self._syntax_given or self._bare_is_wrong
        )
        self._zero_is_off = check is not None and check.least_guidance == 1
        self.unguided = 0
        """Rows whose own guidance_scale switches guidance off; 0 is taken for 1, which does so too."""

    def prompt_alone(self, row: Mapping[str, Any]) -> str | None:
        """The prompt of a row that is plainly right and says nothing else; None for any other."""
        if len(row) != 1 or self._more_given:
            return None
        [(name, value)] = row.items()
        if self._most is not None and isinstance(value, str) and len(value) > self._most:
            return None
        if self._known.get(name) != "prompt":
            return None
        prompt = plain_text(value)
        return None if not prompt or prompt.isspace() else prompt

    def line(self, row: Mapping[str, Any], number: int) -> Line | ManifestError:
        """The row as a line, or all that is wrong with it."""
        values: dict[str, Any] = {}
        unknown: list[str] | None = None
        known, swept, texts = self._known, self._swept, self._texts
        for name, value in row.items():
            try:
                field = known[name]
            except KeyError:
                field = self.roles.field(name)
            if not field:
                if field is not None:
                    unknown = [*([] if unknown is None else unknown), name]
                continue
            if field != "prompt":
                if value is None or (texts and value == ""):
                    continue
                if swept and (field in swept or (field == "seeds" and "seed" in swept)):
                    return ManifestError(f"{name}: the manifest's `sweep` gives it too: remove one of them")
                if texts:
                    try:
                        values[field] = _OF_TEXT.get(field, argument_of_text)(value)
                    except (ManifestError, ValueError) as error:
                        return ManifestError(f"{name} = {shortened(value)}: {error}")
                    continue
            values[field] = value
        if unknown is not None:
            return UnknownColumns(unknown)
        if self.roles.doubled and (trouble := self.roles.twice(row)) is not None:
            return ManifestError(trouble)
        doubtful = False
        for field, value in values.items():
            plain = _PLAIN.get(field, _plain_argument)(value)
            if plain is not None:
                values[field] = plain
                continue
            try:
                values[field], understood = self._understood(field, value, row)
            except ManifestError as error:
                return ManifestError(f"{self._called(field, row)} = {value}: {error}")
            doubtful = doubtful or not understood
        prompt = values.get("prompt", "a")
        if prompt is None or (type(prompt) is str and (not prompt or prompt.isspace())):
            if self._source.empty_prompt is None:
                return ManifestError(self._empty(row))
            values["prompt"] = "" if prompt is None else prompt
        if self._columns:
            values["columns"] = columns = {
                new: value for new, name in self._columns if (value := row.get(name)) is not None
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
                where = _called(path, self.roles.theirs(row))
                return ManifestError(f"{where}: {place} gives it too: remove one of them")
        line = line_of(values, self._defaults)
        first = line.seeds[0] if isinstance(line.seeds, range) else None
        if swept and "seed" in swept:
            first = max(swept["seed"])
        if first is not None and (trouble := last_seed_trouble(first, line.images)) is not None:
            return ManifestError(trouble)
        if line.settings or self._bare_is_wrong:
            if self._zero_is_off and line.settings.get("guidance_scale") == 0:
                line = line._replace(settings={**line.settings, "guidance_scale": 1.0})
            if (refused := self._refused(line.settings, row)) is not None:
                return ManifestError(refused)
        if self._jpeg is not None and (trouble := self._jpeg.trouble(line)) is not None:
            return ManifestError(trouble)
        if self._syntax_given or (self._texts_checked and "syntax" in line.settings):
            troubles = [] if self._check is None else self._check.text_troubles(line.prompt, line.settings)
            if troubles:
                return ManifestError(self._told(troubles, row))
        for name, value in line.columns.items():
            if (trouble := self._kinds.trouble(name, value, f"in {self._file}:{number}")) is not None:
                return ManifestError(f"{name}: {trouble}")
        return line

    def _understood(self, field: str, value: Any, row: Mapping[str, Any]) -> tuple[Any, bool]:
        """What a value means in a prompt file that a manifest does not take, and whether it is such a value.

        Raises ManifestError for a number that stands for no scheduler.
        """
        if field == "id" and type(value) is int:
            return str(value), True
        if field == "seed" and type(value) is int and value == -1:
            # A1111's word for a seed that it chooses.
            return None, True
        if field == "scheduler" and self._called(field, row) == "sampler":
            number = int(value) if type(value) is str and value.isdecimal() else value
            if type(number) is int:
                return scheduler_of_code(number), True
        return value, value is None and field == "prompt"

    def _empty(self, row: Mapping[str, Any]) -> str:
        offer = key_offer(self._source, "empty_prompt: unconditional")
        called = self._called("prompt", row)
        return f"{called}: is empty: write a prompt, or, for pictures of none, {offer}"

    def _called(self, field: str, row: Mapping[str, Any]) -> str:
        """What the file calls a field."""
        return self.roles.theirs(row).get(field, field)

    def _refused(self, settings: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        """What the model's class does not take of a row's settings; None when it takes them."""
        if self._check is None:
            return None
        key = self._check.key(settings)
        taken = self._taken.get(key)
        if taken is not None:
            self.unguided += taken
            return None
        troubles = self._check.troubles(settings)
        if troubles:
            return self._told(troubles, row)
        unguided = self._check.unguided(settings)
        self.unguided += unguided
        if len(self._taken) < _MOST_TAKEN:
            self._taken[key] = unguided
        return None

    def _told(self, troubles: Iterable[Trouble], row: Mapping[str, Any]) -> str:
        """The troubles, under the file's own names."""
        theirs = self.roles.theirs(row)
        return "; ".join(
            # What is missing has no value.
            f"{_called(trouble.path, theirs)}"
            f"{'' if trouble.value is None else f' = {shown_value(trouble.value)}'}: {trouble.what}"
            for trouble in troubles
        )

    def _in_words(self, error: ValidationError, row: Mapping[str, Any]) -> str:
        """The problems, under the file's own names."""
        theirs = {"prompt": self._source.fields.get("prompt", "prompt")} | self.roles.theirs(row)
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
