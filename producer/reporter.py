"""Where a long step reports while it runs: what a person should know, and how far it has come."""

from __future__ import annotations

from typing import Final, Protocol

import click

from jobs.wording import on_its_lines
from producer.bucket_files.object_copies import named


class Reporter(Protocol):
    """Takes the reports of a step that may last."""

    def line(self, text: str, /) -> None:
        """Takes something that a person should know now."""

    def count(self, done: int, total: int | None = None, /) -> None:
        """Takes how many are done so far and, where that was not known before, of how many."""


class Quiet:
    """Drops every report."""

    def line(self, text: str, /) -> None:
        """Drops it."""

    def count(self, done: int, total: int | None = None, /) -> None:
        """Drops it."""


QUIET: Final = Quiet()


class StandardError(Quiet):
    """Prints lines on standard error, and no counts."""

    def line(self, text: str, /) -> None:
        """Prints it."""
        click.echo(on_its_lines(named(text)), err=True)
