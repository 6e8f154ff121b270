"""A YAML file as it was read: its values, and the line and column of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from jobs.wording import shortened

Location = tuple[str | int, ...]
"""The way to a value: `("prompts", 3, "width")`."""


class Refused:
    """Stands for a value that has been refused already."""

    def __repr__(self) -> str:
        return "REFUSED"


REFUSED: Final = Refused()


@dataclass(slots=True)
class Node:
    """One value of the file and where it begins; line and column count from 1."""

    line: int
    column: int
    value: Any
    """str, int, float, bool, None, list or dict; REFUSED where a problem was reported."""
    text: str | None = None
    """How a scalar is written, quotes included; None for a list or mapping."""
    children: dict[str, Node] | list[Node] | None = None
    keys: dict[str, tuple[int, int]] | None = None
    """Line and column of each key of a mapping."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one value."""

    line: int
    """From 1; 0 for a value that is in no file."""
    column: int
    path: Location
    what: str
    """What is wrong, and the remedy."""
    value: str | None = None
    """The value as a message shows it; None where it would say nothing."""

    @property
    def text(self) -> str:
        """`prompts[3].width = 500: must be a multiple of 8 (496 or 504)`."""
        where = dotted(self.path) or "the manifest"
        return f"{where}: {self.what}" if self.value is None else f"{where} = {self.value}: {self.what}"


@dataclass(frozen=True, slots=True)
class Document:
    """The one document of a file."""

    root: Node
    problems: tuple[Problem, ...]
    """What YAML alone shows to be wrong."""

    def find(self, path: Location) -> Node | None:
        """The value at `path`; None when the file has none there."""
        node = self.root
        for step in path:
            children = node.children
            if isinstance(children, dict) and isinstance(step, str):
                below = children.get(step)
            elif isinstance(children, list) and isinstance(step, int):
                below = children[step] if step < len(children) else None
            else:
                below = None
            if below is None:
                return None
            node = below
        return node

    def place(self, path: Location, *, of_key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path` (or of its key), or of the nearest value around it."""
        if of_key and path:
            around = self.find(path[:-1])
            if around is not None and around.keys is not None and path[-1] in around.keys:
                return around.keys[str(path[-1])]
        for length in range(len(path), -1, -1):
            node = self.find(path[:length])
            if node is not None:
                return node.line, node.column
        return 1, 1


def dotted(path: Location) -> str:
    """`("prompts", 3, "width")` as `prompts[3].width`."""
    text = ""
    for step in path:
        name = f"[{step}]" if isinstance(step, int) else shortened(step)
        text += f".{name}" if text and isinstance(step, str) else name
    return text
