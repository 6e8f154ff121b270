"""Pictures as a manifest writes them: names of files, with `{id}` and `{column}` for what is a line's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from jobs.bounds import Column, plain_text
from jobs.errors import ManifestError
from jobs.location import SCHEMES
from jobs.request import PICTURES
from jobs.wording import shortened

ANY_SUFFIX: Final = ".*"
"""At the end of a name: the one picture of that name, whatever its format."""
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class WrittenPicture:
    """Names of pictures' files as a manifest or a row writes them."""

    column: ClassVar[Column] = "string"
    words: ClassVar[str] = "the name of a picture's file; {id} and {column} are the line's own"

    @property
    def annotation(self) -> Any:
        from pydantic import AfterValidator, Field

        text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
        return Annotated[text, AfterValidator(_checked)]

    def plain(self, value: Any) -> str | None:
        text = plain_text(value)
        return text if text and name_trouble(text) is None else None

    def of_text(self, text: str) -> str:
        if (trouble := name_trouble(text)) is not None:
            raise ManifestError(trouble)
        return text


def name_trouble(text: str) -> str | None:
    """What is wrong with the form of a name; None where it may stand."""
    scheme, is_address, _ = text.partition("://")
    if (is_address and scheme not in SCHEMES) or text.startswith("data:"):
        return "is an address: download the picture, and name its file"
    if any(found[0] in ("{", "}") for found in _FIELD.finditer(text)):
        return "has a brace without its other: {id} and {column} are the line's own, {{ and }} are braces"
    return None


def fields_of(text: str) -> tuple[str, ...]:
    """The names in braces, in order."""
    return tuple(found[1] for found in _FIELD.finditer(text) if found[1] is not None)


def filled(text: str, values: Mapping[str, Any]) -> str:
    """The name with a line's values in place of the names in braces.

    Raises ManifestError for one that the line does not have, or that is no text or whole number.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        own = values.get(found[1])
        if own is None:
            there = "give the line one" if found[1] == "id" else "name a column of its own"
            raise ManifestError(
                f"the line has no {found[1]} for {{{found[1]}}}: {there}, or write the file's name"
            )
        if type(own) not in (str, int):
            raise ManifestError(f"{found[1]} = {shortened(str(own))}: is no text, so it names no file")
        return str(own)

    return _FIELD.sub(value, text)


def escaped(text: str) -> str:
    """The text as part of a name, its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def with_pictures(part: Any, renamed: Callable[[str], str]) -> Any:
    """`settings`, `sweep` or a line of a manifest as JSON, with other paths of its pictures."""
    if not isinstance(part, dict):
        return part
    changed: dict[str, Any] = {}
    for name in PICTURES:
        match part.get(name):
            case str(one):
                changed[name] = renamed(one)
            case [*several] if all(isinstance(one, str) for one in several):
                changed[name] = [renamed(one) for one in several]
    return {**part, **changed} if changed else part


def _checked(text: str) -> str:
    from pydantic_core import PydanticCustomError

    if (trouble := name_trouble(text)) is not None:
        raise PydanticCustomError("picture", "{what}", {"what": trouble})
    return text
