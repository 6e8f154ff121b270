"""One argument of the pipeline's call by its dotted name, `arguments.eta`: of a prompt, a row or a sweep.

A mapping `arguments` replaces that of `settings`; a single argument joins it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from jobs.arguments import argument_value, arguments_of, arguments_text, joined

PREFIX: Final = "arguments."


def argument_named(key: str) -> str | None:
    """The argument that a dotted name means; None for any other key."""
    name = key.removeprefix(PREFIX)
    return name if name != key and name.isidentifier() else None


def folded(values: dict[str, Any], usual: str) -> dict[str, Any]:
    """Settings with their single arguments joined to their `arguments`, or to the `usual` ones."""
    single = {name: value for key, value in values.items() if (name := argument_named(key)) is not None}
    if not single:
        return values
    rest = {key: value for key, value in values.items() if argument_named(key) is None}
    whole = rest.get("arguments")
    return rest | {"arguments": joined(usual if whole is None else whole, single)}


def given_twice(values: Mapping[str, Any], swept: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Arguments that a prompt or a row gives twice, or that the sweep gives too: where, and in what else."""
    names = _names(values.get("arguments"))
    for key in values:
        name = argument_named(key)
        if name is not None and name in names:
            yield (key,), "arguments"
        elif name is not None and (key in swept or "arguments" in swept):
            yield (key,), "sweep"
    yield from ((("arguments", name), "sweep") for name in names if PREFIX + name in swept)


def _names(arguments: object) -> Collection[str]:
    """The names in a mapping of arguments as it was written; none in one that is refused elsewhere."""
    try:
        return arguments_of(arguments_text(arguments)).keys()
    except ValueError:
        return ()


def _dotted(key: str) -> str:
    if argument_named(key) is None:
        raise PydanticCustomError("extra_forbidden", "is not such a name")
    return key


def _canonical(value: object) -> Any:
    try:
        return argument_value(value)
    except ValueError as error:
        raise PydanticCustomError("argument", "{what}", {"what": str(error)}) from None


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen = set[str]()
    for value in values:
        text = arguments_text({"value": value})
        if text in seen:
            raise PydanticCustomError("twice", "holds {value} twice: remove one", {"value": str(value)})
        seen.add(text)
    return values


_ONE: Final = {"type": ["string", "number", "boolean", "null"]}
SingleName = Annotated[str, AfterValidator(_dotted)]
"""A key `arguments.NAME`."""
SingleValue = Annotated[
    Any,
    BeforeValidator(_canonical),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE}]}),
]
"""What one argument may be; its type depends on the pipeline."""
SweptValues = Annotated[
    tuple[SingleValue, ...], Field(min_length=1, strict=False), AfterValidator(_each_once)
]
"""The values that a sweep tries of one argument."""


def describe(schema: dict[str, Any]) -> None:
    """Describe in a JSON schema that all further keys are dotted names of arguments."""
    schema["patternProperties"] = {r"^arguments\.[^\W\d]\w*$": schema["additionalProperties"]}
    schema["additionalProperties"] = False
