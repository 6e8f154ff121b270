"""The values that an image's settings may have: a class for each kind of value, and the bounds of each.

A kind checks a value read as JSON, reads a text, describes itself to people and to pydantic, and names the
type of its column in tables. pydantic is imported only by what describes a kind to it: a worker's engine runs
without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol

from jobs.arguments import arguments_text
from jobs.errors import ManifestError
from jobs.schedulers import SCHEDULER_NAMES, find_scheduler

MAX_SEED: Final = 2**63 - 1
SIDES: Final = range(8, 8192 + 8, 8)
STEPS: Final = range(1, 1000 + 1)
SEEDS: Final = range(MAX_SEED + 1)
COUNTS: Final = range(1, 1_000_000 + 1)
QUALITIES: Final = range(1, 100 + 1)
LEAST_GUIDANCE: Final = 0.0
"""Of any pipeline; `jobs.pipelines.pipelines` knows each one's own."""
MOST_GUIDANCE: Final = 100.0

_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_WHOLE_WITH_POINT = re.compile(r"([-+]?[0-9]{1,40})\.0*")
_EXACT: Final = 2**53
"""From here on a decimal number that a program wrote may have been another whole number."""
_DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SHA256 = re.compile("[0-9a-f]{64}")

Precision = Literal["auto", "bf16", "fp16", "amp", "fp32"]
ImageFormat = Literal["png", "jpeg", "webp"]
Fit = Literal["crop", "pad", "stretch"]

Column = Literal["string", "int64", "float64"]
"""The type of a setting's column in tables."""


def plain_text(value: object) -> str | None:
    """The value when it is a text that JSON, UTF-8 and every table can hold; None for any other."""
    if type(value) is not str or "\0" in value:
        return None
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


class Values(Protocol):
    """The values that a setting may have."""

    @property
    def column(self) -> Column:
        """The type of their column in tables."""

    @property
    def words(self) -> str:
        """Which values are right, for people: `a whole number, 1 to 1000`."""

    @property
    def annotation(self) -> Any:
        """Their type for a strict pydantic model, with the bounds."""

    def plain(self, value: Any) -> Any | None:
        """What a right value read as JSON means; None for a wrong one."""

    def of_text(self, text: str) -> Any:
        """What a text means, its bounds unchecked. Raises ManifestError where no number stands for one."""


@dataclass(frozen=True, slots=True)
class Text:
    """Texts that JSON, UTF-8 and every table can hold."""

    empty: bool = True
    """Whether "" is one."""
    column: ClassVar[Column] = "string"

    @property
    def words(self) -> str:
        return f"text{'' if self.empty else ' that is not empty'} (UTF-8, without NUL)"

    @property
    def annotation(self) -> Any:
        from pydantic import Field

        return Annotated[str, Field(min_length=None if self.empty else 1, pattern=r"^[^\x00]*$")]

    def plain(self, value: Any) -> str | None:
        return None if value == "" and not self.empty else plain_text(value)

    def of_text(self, text: str) -> str:
        return text


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers."""

    numbers: range
    column: ClassVar[Column] = "int64"

    @property
    def words(self) -> str:
        most = "2**63-1" if self.numbers[-1] == MAX_SEED else str(self.numbers[-1])
        step = f", a multiple of {self.numbers.step}" if self.numbers.step > 1 else ""
        return f"a whole number, {self.numbers[0]} to {most}{step}"

    @property
    def annotation(self) -> Any:
        from pydantic import Field

        numbers = self.numbers
        step = numbers.step if numbers.step > 1 else None
        return Annotated[int, Field(ge=numbers[0], le=numbers[-1], multiple_of=step)]

    def plain(self, value: Any) -> int | None:
        return value if type(value) is int and value in self.numbers else None

    def of_text(self, text: str) -> int:
        if _WHOLE.fullmatch(text) is not None:
            return int(text)
        # So do programs write whole numbers where some are missing.
        with_point = _WHOLE_WITH_POINT.fullmatch(text)
        if with_point is None:
            raise ManifestError("must be a whole number, without a point")
        number = int(with_point[1])
        if abs(number) >= _EXACT:
            what = "may have been another number: from 2**53 on a decimal number is not exact"
            raise ManifestError(f"{what}: write it without a point")
        return number


@dataclass(frozen=True, slots=True)
class WholeList:
    """Lists of whole numbers, none of them empty."""

    numbers: range
    column: ClassVar[Column] = "string"

    @property
    def words(self) -> str:
        return f"a list, each element {Whole(self.numbers).words}"

    @property
    def annotation(self) -> Any:
        return one_each(Whole(self.numbers))

    def plain(self, value: Any) -> tuple[int, ...] | None:
        if type(value) not in (list, tuple) or not value:
            return None
        return tuple(value) if all(type(one) is int and one in self.numbers for one in value) else None

    def of_text(self, text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(_WHOLE.fullmatch(part) for part in parts):
            raise ManifestError("must be whole numbers with commas between")
        return [int(part) for part in parts]


@dataclass(frozen=True, slots=True)
class Decimal:
    """Finite numbers of a range, bounds included; a whole one means the decimal one."""

    least: float
    most: float
    column: ClassVar[Column] = "float64"

    @property
    def words(self) -> str:
        return f"a number, {self.least:g} to {self.most:g}"

    @property
    def annotation(self) -> Any:
        from pydantic import Field

        return Annotated[float, Field(ge=self.least, le=self.most, allow_inf_nan=False)]

    def plain(self, value: Any) -> float | None:
        if type(value) not in (int, float):
            return None
        return float(value) if self.least <= value <= self.most else None

    def of_text(self, text: str) -> float:
        if _DECIMAL.fullmatch(text) is None:
            raise ManifestError("must be a number")
        return float(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """A few texts."""

    texts: tuple[str, ...]
    column: ClassVar[Column] = "string"

    @property
    def words(self) -> str:
        return f"{', '.join(self.texts[:-1])} or {self.texts[-1]}"

    @property
    def annotation(self) -> Any:
        return Literal[self.texts]

    def plain(self, value: Any) -> str | None:
        return value if type(value) is str and value in self.texts else None

    def of_text(self, text: str) -> str:
        return text


@dataclass(frozen=True, slots=True)
class SchedulerName:
    """The names of `jobs.schedulers`; a right one means its canonical form."""

    column: ClassVar[Column] = "string"

    @property
    def words(self) -> str:
        return f"one of {', '.join(SCHEDULER_NAMES)}, or diffusers' class name"

    @property
    def annotation(self) -> Any:
        from pydantic import AfterValidator, WithJsonSchema

        schema = {"anyOf": [{"enum": list(SCHEDULER_NAMES)}, {"type": "string"}]}
        return Annotated[str, AfterValidator(_canonical_scheduler), WithJsonSchema(schema)]

    def plain(self, value: Any) -> str | None:
        try:
            return find_scheduler(value).name if type(value) is str else None
        except ManifestError:
            return None

    def of_text(self, text: str) -> str:
        return text


@dataclass(frozen=True, slots=True)
class Arguments:
    """Mappings of a pipeline's further arguments; a right one means its canonical text.

    Which arguments there are, and their types, depends on the pipeline: `jobs.pipelines.pipelines`.
    """

    column: ClassVar[Column] = "string"
    words: ClassVar[str] = "a mapping of the pipeline's arguments to their values"

    @property
    def annotation(self) -> Any:
        from pydantic import BeforeValidator, WithJsonSchema

        one = {"type": ["string", "number", "boolean", "null"]}
        values = {"anyOf": [one, {"type": "array", "items": one}]}
        schema = {"type": "object", "additionalProperties": values}
        return Annotated[str, BeforeValidator(_canonical_arguments), WithJsonSchema(schema)]

    def plain(self, value: Any) -> str | None:
        if type(value) not in (str, dict):
            return None
        try:
            return arguments_text(value)
        except ValueError:
            return None

    def of_text(self, text: str) -> str:
        try:
            return arguments_text(text)
        except ValueError as error:
            raise ManifestError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Sha256:
    """SHA-256 of a file's contents."""

    column: ClassVar[Column] = "string"
    words: ClassVar[str] = "the SHA-256 of a file's contents, 64 hex digits"

    @property
    def annotation(self) -> Any:
        from pydantic import Field

        return Annotated[str, Field(pattern=f"^{_SHA256.pattern}$")]

    def plain(self, value: Any) -> str | None:
        return value if type(value) is str and _SHA256.fullmatch(value) is not None else None

    def of_text(self, text: str) -> str:
        return text


def _canonical_scheduler(name: str) -> str:
    from pydantic_core import PydanticCustomError

    try:
        return find_scheduler(name).name
    except ManifestError as error:
        raise PydanticCustomError("scheduler", "{what}", {"what": str(error)}) from None


def step_trouble(values: Values, value: object) -> str | None:
    """What is wrong with a whole number within the bounds that misses the step; None for any other value."""
    if not isinstance(values, Whole) or type(value) is not int or value in values.numbers:
        return None
    numbers = values.numbers
    return must_be_multiple(value, numbers.step) if numbers[0] <= value <= numbers[-1] else None


def must_be_multiple(value: int, step: int) -> str:
    """`must be a multiple of 8 (496 or 504)`: with the positive ones next to the value."""
    lower = value // step * step
    near = f"{lower} or {lower + step}" if lower > 0 else str(step)
    return f"must be a multiple of {step} ({near})"


def _canonical_arguments(value: object) -> str:
    from pydantic_core import PydanticCustomError

    try:
        return arguments_text(value)
    except ValueError as error:
        raise PydanticCustomError("arguments", "{what}", {"what": str(error)}) from None


def one_each(values: Values) -> Any:
    """The type of a list of such values, for a strict pydantic model."""
    from pydantic import Field

    one = values.annotation
    return Annotated[tuple[one, ...], Field(min_length=1, strict=False)]  # type: ignore[valid-type]
