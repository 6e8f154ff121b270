"""Where an output is, as an argument of a command: a folder that exists, or a place in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.location import names_bucket

if TYPE_CHECKING:
    from jobs.output.output import Output

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class OutputPlace(click.ParamType["Output"]):
    """An `Output`: of a folder, or of s3://BUCKET/PREFIX, gs:// or az://, which is not asked yet."""

    name = "output"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Output:
        """Raises OutputError for what is no place in a bucket."""
        from jobs.output.output import Output

        if isinstance(value, str) and names_bucket(value):
            return Output.at(value)
        return Output(_FOLDER.convert(value, param, ctx).resolve())


class PathOrBucket(click.Path):
    """A path of this machine, or the text that names a place in a bucket."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and names_bucket(value):
            return value
        return super().convert(value, param, ctx)


OUTPUT = OutputPlace()
"""The type of an argument that names an output."""
