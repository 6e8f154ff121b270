"""Texts that others wrote, in a page of Markdown: shown as they are, whatever marks they hold."""

from __future__ import annotations

import re
from typing import Final

from jobs.wording import printable

_MARKS: Final = {ord(mark): f"\\{mark}" for mark in "\\`|[]"} | {ord("<"): "&lt;", ord("&"): "&amp;"}
"""What begins code, links, pictures, cells and HTML -> how it is written as itself."""


def in_text(text: object) -> str:
    """The text for a line or a cell of a table."""
    return printable(" ".join(str(text).split("\n"))).translate(_MARKS)


def in_code(text: object) -> str:
    """The text as code, in a line."""
    line = printable(" ".join(str(text).split("\n")))
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    # Between longer fences one blank at each end does not count.
    return f"{fence} {line} {fence}" if longest else f"`{line}`"
