"""Patterns of the names of a bucket's files: *, ?, [a-z], ** as in a folder's."""

from __future__ import annotations

import re
from typing import Final

_WILDCARD: Final = re.compile(r"[*?[]")
_OF_ONE: Final = {"*": "[^/]*", "?": "[^/]"}
_NOT_HIDDEN: Final = "(?![.])"
_ANY_FOLDERS: Final = f"(?:{_NOT_HIDDEN}[^/]+/)*"


def fixed_folder(pattern: str) -> tuple[str, str]:
    """The folder below which a pattern's files lie, and the rest of the pattern, which has the wildcards."""
    parts = pattern.split("/")
    fixed = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
    return "/".join(parts[:fixed]), "/".join(parts[fixed:])


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression of whole names. No wildcard matches a name that begins with a dot.

    Raises ValueError for a set of characters that is none, as [z-a].
    """
    *folders, last = pattern.split("/")
    made = "".join(_ANY_FOLDERS if part == "**" else f"{_expression(part)}/" for part in folders)
    made += f"{_ANY_FOLDERS}{_NOT_HIDDEN}[^/]+" if last == "**" else _expression(last)
    try:
        return re.compile(made)
    except re.error as error:
        raise ValueError(str(error)) from None


def _expression(part: str) -> str:
    beginning = _NOT_HIDDEN if _WILDCARD.match(part) else ""
    return beginning + re.sub(r"\[!?\]?[^\]]*\]|.", _of_one, part)


def _of_one(found: re.Match[str]) -> str:
    text = found[0]
    if text in _OF_ONE:
        return _OF_ONE[text]
    if len(text) > 2:
        # Characters that have, or may get, a meaning of their own in a set.
        inner = re.sub(r"[\\\[&~|]", r"\\\g<0>", text[1:-1])
        # A range may go over the slash.
        return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"
    return re.escape(text)
