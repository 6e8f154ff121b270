"""How messages write counts, names and values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

_FOLDERS: Final = re.compile(r"(?<![\w./~…])(?:~[^\s/]*)?/(?:[^\s/'\"`:,;()<>\[\]]+/)+")
"""The folders of a path that begins at the root or at somebody's home; those of a URL are none."""


def shortened(text: str, length: int = 60) -> str:
    """`text` on one line, cut to `length` characters for a message."""
    text = printable(text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "…"


def printable(text: str) -> str:
    """`text` for a message: on one line, with characters escaped that a terminal would obey or hide."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def on_one_line(text: str) -> str:
    """`text` that others wrote, for a terminal or a log: on one line, its lines separated by semicolons."""
    return text if text.isprintable() else printable("; ".join(text.split("\n")))


def on_its_lines(text: str) -> str:
    """The same with its lines: for what was put together of several."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def shown(name: str) -> str:
    """A file's name for a message: characters that cannot be printed are escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def without_folders(text: str) -> str:
    """`text` without the folders in it that tell whose machine it was written on: …/foxes.npy."""
    home = os.path.expanduser("~")  # noqa: PTH111 - raises nothing
    if home.count("/") > 1:
        text = text.replace(f"{home}/", "~/")
    return _FOLDERS.sub("…/", text)


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c, …`: the first of the names, and whether there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """`1 image`, `20,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
