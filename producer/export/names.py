"""Names of exported files: a template such as `{id}.png`, filled in from a picture's metadata."""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from array import array
from collections.abc import Callable

from jobs.errors import JobError, OutputError
from jobs.output.compact_counter import CompactCounter
from jobs.wording import printable, shortened

INDEX = "{index:09d}"
"""The template of an export that names none: nine digits for the picture's place, from 0."""

_ENDINGS = {".png": (".png",), ".jpg": (".jpg", ".jpeg"), ".webp": (".webp",)}
"""A picture's suffix -> those that its name may end with."""
_MOST_BYTES = 255
"""Of a name, on ext4, XFS, APFS and NTFS."""
_FORMAT = re.compile(r"(?:.?[<>=^])?[-+ ]?[z#]*0?[0-9]{0,3}[,_]?(?:\.[0-9]{1,2})?[a-zA-Z%]?")
"""Format specifications whose result is of some hundred characters at most."""
_REFUSED = re.compile(r'[\x00-\x1f\x7f/\\<>:"|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""What Windows takes for a device, with any suffix."""
_SAFE = (
    'a name must not hold / \\ < > : " | ? * or a control character, begin or end with a dot or a space, or '
    "be a device of Windows"
)


class NameTemplate:
    """A template of file names, checked: `{column}` or `{column:format}`, with Python's formats."""

    def __init__(self, text: str) -> None:
        """Raises JobError for what is no template."""
        self.text = text
        self._parts: list[tuple[str, str | None, str]] = []
        try:
            for literal, field, format_spec, conversion in string.Formatter().parse(text):
                if field is not None and (field == "" or conversion is not None):
                    raise ValueError("a place must name a column, as {id} or {seed:06d}")
                if not _FORMAT.fullmatch(format_spec or ""):
                    raise ValueError(f"{format_spec!r} is no short format such as 06d or .1f")
                self._parts.append((literal, field, format_spec or ""))
        except ValueError as error:
            raise _refused(text, str(error)) from None
        if all(field is None for field in self.columns):
            raise _refused(
                text, "every file would have the same name: it needs a place such as {index} or {id}"
            )

    @property
    def columns(self) -> list[str | None]:
        """The column of each place; None where a literal ends the template."""
        return [field for _, field, _ in self._parts]

    def named(self, value_of: Callable[[str], object], index: int, suffix: str, what: str) -> str:
        """The name of one file: the template filled in, with `suffix` (`.png`) where it does not end so.

        `value_of`: the value of a column; raises LookupError that says what `what` has not. `index`: the
        file's place, from 0. `what`: what the file is of, for messages. Raises OutputError for a name that no
        file can have everywhere, with the remedy.
        """
        written = []
        for literal, field, format_spec in self._parts:
            written.append(literal)
            if field is not None:
                value = index if field == "index" else self._value(value_of, field, what)
                written.append(self._formatted(value, field, format_spec, what))
        name = _with_suffix("".join(written), suffix, what)
        stem = name.partition(".")[0]
        if _REFUSED.search(name) or name[0] in ". " or name[-1] in ". " or _DEVICE.fullmatch(stem.strip()):
            raise OutputError(
                f"{what} would be called {_quoted(name)}: {_SAFE}: name another column in --name"
            )
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            raise OutputError(f"{what} would be called {_quoted(name)}, which is not Unicode") from None
        if length > _MOST_BYTES - len(".txt"):
            raise OutputError(
                f"{what} would have a name of {length:,} bytes, {_quoted(name)}: file systems take "
                f"{_MOST_BYTES}: name a shorter column in --name, as {{index}}"
            )
        return name

    def _value(self, value_of: Callable[[str], object], field: str, what: str) -> object:
        try:
            value = value_of(field)
        except LookupError as error:
            raise OutputError(f'--name "{self.text}": {what} {error.args[0]}') from None
        if value is None:
            raise OutputError(f'--name "{self.text}": {what} has no {field}: use {{index}} in its place')
        if isinstance(value, (list, dict)):
            raise OutputError(
                f'--name "{self.text}": {field} of {what} is a list or an object: name another column'
            )
        return value

    def _formatted(self, value: object, field: str, format_spec: str, what: str) -> str:
        try:
            return format(value, format_spec)
        except (ValueError, OverflowError):
            kind = "text" if isinstance(value, str) else "number"
            digits = format_spec.strip("0d")
            remedy = f", as {{{field}:0>{digits}}}" if kind == "text" and digits.isdigit() else ""
            raise OutputError(
                f'--name "{self.text}": {field} = {_quoted(str(value))} of {what} is a {kind}, which has no '
                f"format {format_spec!r}: use another{remedy}"
            ) from None


class TakenNames:
    """The names of an export's files so far: 11 bytes each, and 8 for what a file is of."""

    def __init__(self) -> None:
        self._indices, self._keys = CompactCounter(), array("Q")

    def add(self, name: str, key: int, what: Callable[[int, int], str]) -> None:
        """Takes in the next file's name. Raises OutputError for one that another file has, also where the
        case or the form of the letters does not count.

        `key`: 64 bits of the caller's for this file; `what(index, key)` says for a message what it is of.
        """
        index = len(self._keys)
        self._keys.append(key)
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        hashed = int.from_bytes(hashlib.blake2b(alike.encode(), digest_size=8).digest())
        first = self._indices.get(hashed)
        if first:
            raise OutputError(
                f"{what(first - 1, self._keys[first - 1])} and {what(index, key)} would both be called "
                f"{_quoted(name)} (upper and lower case count as one): add {{index}} to --name, or a "
                "column in which they differ"
            )
        self._indices.set(hashed, index + 1)


def _with_suffix(name: str, suffix: str, what: str) -> str:
    lower = name.casefold()
    endings = _ENDINGS.get(suffix, (suffix,))
    if any(lower.endswith(ending) and len(lower) > len(ending) for ending in endings):
        return name
    if any(lower.endswith(other) for others in _ENDINGS.values() for other in others):
        raise OutputError(
            f"{what} is a {suffix} file, and would be called {_quoted(name)}: end --name with {suffix}, or "
            "with no suffix where the formats differ"
        )
    return f"{name}{suffix}"


def _quoted(name: str) -> str:
    return f'"{shortened(printable(name), 80)}"'


def _refused(text: str, why: str) -> JobError:
    return JobError(f'--name "{printable(text)}": {why}')
