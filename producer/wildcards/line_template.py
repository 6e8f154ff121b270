"""The template of a line: its prompt's, and its negative prompt's where that is one too."""

from __future__ import annotations

from typing import Final

APART: Final = "\0"
"""Between both: they are counted and drawn as one."""


def has_syntax(text: str) -> bool:
    """Whether `text` may stand for anything else than itself; False is sure."""
    return "{" in text or "__" in text or "#" in text or "//" in text or "/*" in text


def line_template(prompt: str, negative: str) -> str:
    """What is drawn from for one line."""
    return f"{prompt}{APART}{negative}" if has_syntax(negative) else prompt
