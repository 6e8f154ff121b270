"""A path of this machine as an argument of a command, where one in a bucket would be taken for a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.location import names_bucket


class LocalPath(click.Path):
    """A path of this machine; a place in a bucket is refused in a line that says so."""

    def __init__(
        self, what: str, *, exists: bool = True, file_okay: bool = True, dir_okay: bool = True
    ) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and names_bucket(value):
            self.fail(f"{value!r} is in a bucket: name {self._what} of this machine", param, ctx)
        return super().convert(value, param, ctx)
