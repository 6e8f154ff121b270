"""One further argument of a pipeline's call: which values are right, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Argument:
    """A further argument of a pipeline's call."""

    kind: str
    """`boolean`, `whole number`, `number`, `text`, `pair of whole numbers`, or `list of` such."""
    null: bool
    default: Any
    least: float | None = None
    above: float | None = None
    """The number that it must be greater than."""
    most: float | None = None
    steps: int | None = None
    """The only number of steps at which it is not null."""
    steps_within: bool = False
    """Whether it must be at least as many as the steps."""
    dynamic_shift: bool = False
    """Whether it means something only to a model whose noise levels follow the size."""

    @property
    def words(self) -> str:
        """Which values are right, for people."""
        words = f"a {self.kind}"
        if self.above is not None:
            words += f" above {self.above:g}"
        elif self.least is not None:
            words += f" of at least {self.least:g}"
        if self.most is not None:
            words += (
                f" and at most {self.most:g}" if words != f"a {self.kind}" else f" of at most {self.most:g}"
            )
        if self.kind == "text":
            words += ": write it in quotes"
        return f"{words}, or null" if self.null else words

    def takes(self, value: Any) -> bool:
        """Whether a value read as JSON is right."""
        if value is None:
            return self.null
        if self.kind == "pair of whole numbers":
            return type(value) is list and len(value) == 2 and all(type(one) is int for one in value)
        if self.kind.startswith("list of "):
            inner = self.kind.removeprefix("list of ").removesuffix("s")
            return type(value) is list and bool(value) and all(_is(inner, one) for one in value)
        return _is(self.kind, value) and self._within(value)

    def _within(self, value: Any) -> bool:
        """Whether a value is within the limits; one without limits is."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    def meant(self, value: Any) -> Any:
        """The value as the call takes it: 4 for a number is 4.0, a pair is a tuple."""
        if value is None:
            return None
        if self.kind == "number":
            return float(value)
        if self.kind == "list of numbers":
            return [float(one) for one in value]
        return tuple(value) if self.kind == "pair of whole numbers" else value


def _is(kind: str, value: Any) -> bool:
    """Whether one value is of a kind without parts."""
    match kind:
        case "boolean":
            return type(value) is bool
        case "whole number":
            return type(value) is int
        case "number":
            return type(value) in (int, float)
        case _:
            return type(value) is str
