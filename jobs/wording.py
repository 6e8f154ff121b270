"""How messages write counts, names and values."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(text: str, length: int = 60) -> str:
    """`text` on one line, cut to `length` characters for a message."""
    text = printable(text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "…"


def printable(text: str) -> str:
    """`text` for a message: on one line, with characters escaped that a terminal would obey or hide."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(name: str) -> str:
    """A file's name for a message: characters that cannot be printed are escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c, …`: the first of the names, and whether there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """`1 image`, `20,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
