"""The commands that take a manifest. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.command_line import done_all_the_same
from jobs.errors import JobError
from producer.session import FILE, Session, emit, exit_with, json_option, pass_session, print_json
from producer.stops import interruptible

if TYPE_CHECKING:
    from producer.requests.prepared import Prepared
    from producer.submit.submit import Submitted

_NO_WORKER = "no worker is alive: start one with `imagemill-worker`; the jobs wait in Redis"


def _narrowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --limit and --sample, which exclude each other."""
    number = click.IntRange(min=1)

    @click.option("--limit", type=number, metavar="N", help="Take only the first N images.")
    @click.option(
        "--sample", type=number, metavar="N", help="Take only N images, drawn at random (always the same)."
    )
    @wraps(function)
    def narrowed(*arguments: Any, limit: int | None, sample: int | None, **options: Any) -> Any:
        if limit is not None and sample is not None:
            raise JobError("--limit and --sample exclude each other: give one")
        return function(*arguments, limit=limit, sample=sample, **options)

    return narrowed


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
@_narrowing
@click.option("--orphans", type=FILE, metavar="FILE", help="Write all orphans to FILE, a line of JSON each.")
@json_option
@pass_session
@interruptible("stopped; nothing was written")
def plan(
    session: Session, file: Path, limit: int | None, sample: int | None, orphans: Path | None, as_json: bool
) -> None:
    """Show what submitting FILE would render, and what that would take.

    How many images of each size and number of steps there are, and which are new, changed, unchanged or
    orphaned compared with the output; the time on devices whose speed is known; bytes on disk and in Redis.
    Nothing is written except what --orphans asks for, and no Redis is needed.
    """
    from contextlib import ExitStack

    from producer.plan.plan import plan_submission
    from producer.plan.report import listing, report, to_json
    from producer.progress import counting
    from producer.requests.prepared import prepare

    if orphans is not None and (limit is not None or sample is not None):
        raise JobError("--orphans: with --limit or --sample no orphan is known: leave one of them out")
    prepared = prepare(file, session.settings, limit=limit, sample=sample)
    with ExitStack() as stack:
        on_orphan = stack.enter_context(listing(orphans))
        reporter = stack.enter_context(counting("images read"))
        planned = plan_submission(prepared, session.settings, reporter, on_orphan)
    emit(planned, as_json, report, to_json)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@_narrowing
@click.option("--wait", is_flag=True, help="Wait until the jobs are finished; exit as `watch` does.")
@json_option
@pass_session
@interruptible("stopped in the middle: run the same command to continue")
def submit(
    session: Session,
    files: tuple[Path, ...],
    limit: int | None,
    sample: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Queue what the outputs of manifests lack.

    An image that the output already holds, by image_id, is not rendered again.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from producer.progress import counting
    from producer.requests.prepared import prepare
    from producer.submit.report import print_submitted
    from producer.submit.submit import packed_for, store

    queue, submitted = session.queue, []
    with ExitStack() as stack:
        # All are read to their ends before the first is stored.
        prepared = [prepare(file, session.settings, limit=limit, sample=sample) for file in files]
        _one_output_each(files, prepared)
        queue.check()
        with counting("images read") as reporter:
            packed = [stack.enter_context(packed_for(one, queue.ledger, reporter)) for one in prepared]
        for one in packed:
            with counting("images stored", one.images) as reporter:
                submitted.append(store(one, queue, reporter))
            session.confirm()
            if not as_json:
                with done_all_the_same(_submitted(submitted)):
                    print_submitted(submitted[-1])
    if not wait:
        with done_all_the_same(_submitted(submitted)):
            if as_json:
                print_json([asdict(each) for each in submitted])
            elif not queue.ledger.workers():
                click.echo(_NO_WORKER)
        return
    exit_with([session.follow(each.job_id, quiet=as_json) for each in submitted], as_json)


def _submitted(jobs: Sequence[Submitted]) -> str:
    return f"submitted: {', '.join(job.job_id for job in jobs)} (`imagemill status` shows it)"


def _one_output_each(files: Sequence[Path], prepared: Sequence[Prepared]) -> None:
    first: dict[str, Path] = {}
    for file, one in zip(files, prepared, strict=True):
        other = first.setdefault(one.output.label, file)
        if other is not file:
            raise JobError(
                f"{other} and {file}: both write to {one.output.label}, one job at a time: submit the second "
                "when the first has finished, or name another output"
            )


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
@_narrowing
@click.option(
    "--gpus",
    default="auto",
    show_default=True,
    metavar="auto|all|any|0,1|none",
    help="As of imagemill-worker.",
)
@click.option("--keep", is_flag=True, help="Keep the data of the Redis that this command starts.")
@click.option("--no-serve", is_flag=True, help="Serve no pages.")
@pass_session
def run(
    session: Session,
    file: Path,
    limit: int | None,
    sample: int | None,
    gpus: str,
    keep: bool,
    no_serve: bool,
) -> None:
    """Render a manifest on this machine, now.

    Starts a Redis (unless IMAGEMILL_REDIS_URL is set) and a worker, and stops them at the end. With the extra
    `serve`, it also prints an address at which a browser shows progress and pictures meanwhile.

    Ctrl-C stops cleanly; the same command continues where it stopped.
    """
    from producer.requests.prepared import prepare
    from producer.run import run_job

    prepared = prepare(file, session.settings, limit=limit, sample=sample)
    exit_with([run_job(prepared, session.settings, gpus=gpus, keep=keep, serve=not no_serve)])


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
@json_option
@pass_session
@interruptible("stopped before the end; nothing was changed")
def recover(session: Session, file: Path, as_json: bool) -> None:
    """Restore FILE's newest job, which Redis has lost.

    What is done and what failed is read from the output, the rest from the manifest, which must be as it was
    submitted. The job continues under its id, with --limit or --sample where it had one.
    """
    from producer.progress import counting
    from producer.submit.recover import recover_job
    from producer.submit.report import print_recovered

    queue = session.queue
    with counting("images read") as reporter:
        recovered = recover_job(file, session.settings, queue, reporter)
    session.confirm()
    with done_all_the_same(f"{recovered.job_id} is restored"):
        emit(recovered, as_json, print_recovered)
    if not as_json and not queue.ledger.workers():
        click.echo(_NO_WORKER)


@click.command()
@click.argument(
    "file",
    metavar="[FILE]",
    default="manifest.yaml",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
)
def init(file: Path) -> None:
    """Write a commented manifest to begin with.

    FILE is manifest.yaml when left out; - prints the manifest. A file that exists is not overwritten.
    """
    from producer.manifest.starter import starter_text, write_starter

    if str(file) == "-":
        click.echo(starter_text(), nl=False)
        return
    write_starter(file)
    click.echo(f"wrote {file}; `imagemill run {shlex.quote(str(file))}` renders its pictures")


@click.command()
def schema() -> None:
    """Print the JSON schema of manifests, for editors."""
    from producer.manifest.manifest import json_schema

    print_json(json_schema())
