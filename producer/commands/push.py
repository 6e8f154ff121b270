"""The command that pushes an output to the Hugging Face hub. It imports heavy modules itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from producer.commands.places import OUTPUT
from producer.session import emit, json_option

if TYPE_CHECKING:
    from jobs.output.output import Output
    from producer.push.paths import FormName


@click.command()
@click.argument("output", metavar="OUT", type=OUTPUT)
@click.argument("repository", metavar="ORG/NAME")
@click.option(
    "--to",
    type=click.Choice(["webdataset", "parquet"]),
    help="Tars as they are, or parquets with the pictures. Default: tars where all pictures are in tars.",
)
@click.option("--public", is_flag=True, help="A new repository can be read by everybody. Default: private.")
@click.option("--revision", metavar="BRANCH", default="main", help="A branch, made where there is none.")
@click.option("--overwrite", is_flag=True, help="Replace shards in the repository that are not the output's.")
@click.option("--dry-run", is_flag=True, help="Say files, bytes and commits, and change nothing.")
@json_option
def push(
    output: Output,
    repository: str,
    to: FormName | None,
    public: bool,
    revision: str,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push OUT to a dataset repository of the Hugging Face hub.

    ORG/NAME is made where it is not there, private unless --public is given; `load_dataset` reads it. What it
    holds already is not sent again: after a top-up, a failure or Ctrl-C, the same command goes on. Files of
    others and a README.md of yours there are kept. The token is HF_TOKEN, or that of a login (`hf auth
    login`).
    """
    from producer.push.push import Options
    from producer.push.push import push as push_output
    from producer.push.report import report

    options = Options(to=to, public=public, branch=revision, overwrite=overwrite, dry_run=dry_run)
    emit(push_output(output, repository, options), as_json, report)
