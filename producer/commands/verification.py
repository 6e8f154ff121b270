"""The command that renders images of an output again. It imports heavy modules itself."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.local_path import LocalPath
from producer.commands.places import OUTPUT, PathOrBucket
from producer.session import Session, emit, json_option, pass_session

if TYPE_CHECKING:
    from jobs.output.output import Output


class _Count(click.ParamType[int | None]):
    """A number from 1, or `all`, which becomes None."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "all":
            return None
        return click.IntRange(1, 10**9).convert(value, param, ctx)


_FOLDER = LocalPath("a folder", file_okay=False)


@click.command()
@click.argument("output", metavar="OUT", type=OUTPUT)
@click.option(
    "--sample", type=_Count(), default="20", show_default=True, metavar="N|all", help="How many images."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**64 - 1),
    metavar="S",
    help="Draws the same images again. Default: another each time, which the report says.",
)
@click.option(
    "--tolerance",
    type=click.IntRange(0, 255),
    default=0,
    show_default=True,
    metavar="D",
    help="The largest difference of a channel, of 255, that is equal where bytes are not promised.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=LocalPath("a folder or file"),
    metavar="PATH",
    help="The folder or file of a model that is not where it was: also of a ControlNet or an image encoder "
    "(repeatable).",
)
@click.option(
    "--inputs",
    multiple=True,
    type=_FOLDER,
    metavar="FOLDER",
    help="An output, or any folder, that has files which requests name and OUT does not keep (repeatable).",
)
@click.option(
    "--into",
    type=PathOrBucket(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Where pictures are rendered meanwhile, below the workers' IMAGEMILL_OUTPUT_ROOT: a folder, or "
    "s3://BUCKET/PREFIX. Default: beside OUT, or where temporary files are if no Redis is configured.",
)
@click.option(
    "--gpus",
    default="auto",
    show_default=True,
    metavar="auto|all|any|0,1|none",
    help="Which GPUs the worker of its own claims, if no Redis is configured.",
)
@json_option
@pass_session
def verify(
    session: Session,
    output: Output,
    sample: int | None,
    seed: int | None,
    tolerance: int,
    models: tuple[Path, ...],
    inputs: tuple[Path, ...],
    into: Path | str | None,
    gpus: str,
    as_json: bool,
) -> None:
    """Render a sample of an output's images again, and compare.

    Images are rendered through the queue by the workers that run; without IMAGEMILL_REDIS_URL, by a Redis and
    a worker of its own. Where device, precision, slots, versions and mode are as they were, files are
    compared byte by byte, else pixel by pixel. OUT is only read. Exit status: 0 all are equal, 1 one differs,
    2 one could not be compared, or bad input.
    """
    from producer.verify import report
    from producer.verify.verify import Options
    from producer.verify.verify import verify as verified

    options = Options(
        count=sample,
        seed=secrets.randbelow(2**32) if seed is None else seed,
        tolerance=tolerance,
        models=models,
        inputs=inputs,
        into=into.resolve() if isinstance(into, Path) else into,
        gpus=gpus,
    )
    found = verified(output, session.settings, options, quiet=as_json)
    emit(found, as_json, report.report, report.to_json)
    sys.exit(found.exit_code)
