"""A reporter that keeps what it is given."""

from __future__ import annotations


class Reported:
    """The lines and counts that a step has reported, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: list[tuple[int, int | None]] = []

    def line(self, text: str, /) -> None:
        self.lines.append(text)

    def count(self, done: int, total: int | None = None, /) -> None:
        self.counts.append((done, total))
