"""The command that takes pictures. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from jobs.local_path import LocalPath
from producer.stops import interruptible


@click.command("import")
@click.argument(
    "pictures", metavar="PICTURE...", nargs=-1, required=True, type=LocalPath("a picture", exists=False)
)
@click.option("--name", default="again", show_default=True, metavar="NAME", help="The name of the job.")
@click.option(
    "--model", metavar="MODEL", help="The manifest's model: a folder, a file, a hub id or a built-in one."
)
@click.option("--only", metavar="NAME", help="Only pictures that name the model NAME.")
@interruptible("stopped; nothing was written")
def import_pictures(pictures: tuple[Path, ...], name: str, model: str | None, only: str | None) -> None:
    """Print a manifest that asks for pictures again.

    PICTURE is a PNG, JPEG or WebP file, or a folder of such. Read are pictures of imagemill, whose requests
    come back exactly, and of A1111, Forge, ComfyUI, InvokeAI, SwarmUI, Fooocus, NovelAI and Draw Things, as
    far as their files tell.

    What a manifest cannot say is named on standard error, and in a comment beside the prompt. Most programs
    name a model without telling where it is: without --model, the stand-in `instant` takes its place.

    Exit status: 0 every picture is in the manifest, 1 some tell nothing and are named, 2 none does.
    """
    from producer.importing.imported import import_pictures as read
    from producer.importing.manifest_text import manifest_text

    imported = read(pictures, model=model, only=only)
    text = manifest_text(imported, name)
    for message in imported.messages():
        click.echo(message, err=True)
    # Bytes: a manifest is UTF-8 wherever it is written.
    click.echo(text.encode(), nl=False)
    sys.exit(imported.exit_code)
