"""The commands that take an output. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from producer.commands.places import OUTPUT, PathOrBucket
from producer.session import FILE, Session, emit, json_option, pass_session

if TYPE_CHECKING:
    from jobs.output.output import Output
    from producer.export.options import Form


@click.command()
@click.argument("output", metavar="OUT", type=OUTPUT)
@click.option("--repair", is_flag=True, help="Set aside what is broken, and send it back to its job.")
@json_option
@pass_session
def doctor(session: Session, output: Output, repair: bool, as_json: bool) -> None:
    """Prove that an output, a folder or s3://BUCKET/PREFIX, is sound, or name what is wrong in it.

    Every picture is there, whole and as it was written; no image is there twice; lines and files agree;
    nothing is missing that its manifests ask for. Exit status: 0 nothing is wrong, 1 something is, 2 bad
    input.

    --repair moves broken pictures and wrong lines to OUT/.imagemill/quarantine. If Redis holds their finished
    job, they are sent back to it; otherwise submit the manifest again to render what is lacking.
    """
    from producer.doctor.doctor import diagnose, report, to_json

    diagnosis = diagnose(output, session.settings, repair=repair)
    emit(diagnosis, as_json, report, to_json)
    sys.exit(diagnosis.exit_code)


@click.command()
@click.argument("source", metavar="SOURCE", type=PathOrBucket(exists=True))
@click.argument("target", metavar="TARGET", type=PathOrBucket())
@click.option(
    "--to",
    required=True,
    type=click.Choice(["files", "webdataset", "parquet", "flat", "captions", "geneval", "grid"]),
    help="Pictures in folders; tars; one table that holds the pictures; pictures alone in one folder; the "
    "same, each with its prompt in a .txt; GenEval's folders; or pages of pictures.",
)
@click.option("--only-current", type=FILE, metavar="MANIFEST", help="Only images that MANIFEST asks for.")
@click.option("--shard-size", type=click.IntRange(1, 10_000), metavar="N", help="Images in a shard: 1000.")
@click.option("--no-pictures", is_flag=True, help="With --to parquet: only the metadata.")
@click.option(
    "--name",
    metavar="TEMPLATE",
    help="With --to flat, captions or grid: files' names by columns, as {id}.png. Default: {index:09d}.",
)
@click.option("--x", metavar="COLUMN", help="With --to grid: what a page's columns are, as scheduler.")
@click.option("--y", metavar="COLUMN", help="With --to grid: what a page's rows are, as guidance_scale.")
@click.option(
    "--page",
    "pages",
    multiple=True,
    metavar="COLUMN",
    help="With --to grid: a page for each of its values (repeatable). Default: the prompt, and all settings "
    "that differ and no axis decides.",
)
@click.option("--plain", is_flag=True, help="With --to grid: pictures without labels and space, as they are.")
@click.option(
    "--font", type=FILE, metavar="FILE", help="With --to grid: the labels' font, a .ttf, .otf or .ttc."
)
@json_option
@pass_session
def export(
    session: Session,
    source: Path | str,
    target: Path | str,
    to: Form,
    only_current: Path | None,
    shard_size: int | None,
    no_pictures: bool,
    name: str | None,
    x: str | None,
    y: str | None,
    pages: tuple[str, ...],
    plain: bool,
    font: Path | None,
    as_json: bool,
) -> None:
    """Write the pictures of SOURCE to TARGET in another form.

    SOURCE is an output, or a parquet that this command wrote, whose rows come back exactly. TARGET, a folder
    or with --to parquet a file, appears whole or not at all. Pictures keep their bytes, and each is checked;
    failures are not exported. Equal outputs give equal exports. --to grid draws the pictures on pages; files,
    webdataset and parquet are datasets, with all metadata.

    SOURCE may be an output in a bucket, s3://BUCKET/PREFIX, gs:// or az://. So may TARGET with --to
    webdataset, where README.md comes last and the same command goes on with what was cut short, and with
    --to parquet.
    """
    from producer.export.export import report, write_export
    from producer.export.options import Options

    exported = write_export(
        source if isinstance(source, str) else source.resolve(),
        target if isinstance(target, str) else target.resolve(),
        to,
        session.settings,
        only_current=only_current,
        options=Options(
            shard_size=shard_size,
            with_pictures=not no_pictures,
            name=name,
            x=x,
            y=y,
            pages=pages,
            plain=plain,
            font=font,
        ),
    )
    emit(exported, as_json, report)
