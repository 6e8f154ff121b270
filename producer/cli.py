"""`imagemill`: the command line. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.errors import ImagemillError, Interrupted, JobError
from producer.stops import stops_raise

if TYPE_CHECKING:
    from jobs.ledger.job import JobStatus
    from jobs.ledger.ledger import Ledger
    from jobs.settings import Settings
    from producer.export.export import Form
    from producer.submit.prepare import Prepared

_FILE = click.Path(dir_okay=False, path_type=Path)
_NO_WORKER = "no worker is alive: start one with `imagemill-worker`; the jobs wait in Redis"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imagemill")
@click.option("--insecure", is_flag=True, help="Use a Redis beyond this machine without password or TLS.")
def command(*, insecure: bool) -> None:
    """Render YAML manifests of prompts into datasets of pictures, through Redis and Celery.

    `imagemill run FILE` does it all on this machine. With a Redis of your own (IMAGEMILL_REDIS_URL) and
    workers (`imagemill-worker`) anywhere, `imagemill submit FILE` and watch.

    Exit status: 0 done, 1 some images failed or the job was ended early, 2 bad input, 130 Ctrl-C or SIGTERM.
    """
    if insecure:
        os.environ["IMAGEMILL_INSECURE"] = "1"  # the worker of `run` must hear of it, too


def _narrowing(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--sample",
        type=click.IntRange(min=1),
        metavar="N",
        help="Only N images drawn at random (the same each time).",
    )(function)
    return click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")(
        function
    )


@command.command()
@click.argument("file", metavar="FILE", type=_FILE)
@_narrowing
@click.option("--orphans", type=_FILE, metavar="FILE", help="Write all orphans there, a line of JSON each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(file: Path, limit: int | None, sample: int | None, orphans: Path | None, as_json: bool) -> None:
    """Tell what submitting FILE would render, and what that would take.

    How many images of each size and number of steps; which of them are new, changed, unchanged or orphaned
    against what the output holds; time on the devices whose speed workers have told, bytes on disk and in
    Redis. Nothing is written but what --orphans asks for, and no Redis is needed.
    """
    from contextlib import ExitStack

    from jobs.settings import load_settings
    from producer.plan.plan import plan as plan_submission
    from producer.plan.report import listing, report, to_json
    from producer.progress import counting
    from producer.submit.prepare import prepare

    _one_of(limit, sample)
    if orphans is not None and (limit is not None or sample is not None):
        raise JobError(
            "--orphans: --limit and --sample ask for a part, which tells of no orphan: leave one out"
        )
    settings = load_settings()
    try:
        prepared = prepare(file, settings, limit=limit, sample=sample)
        with ExitStack() as stack:
            on_orphan = stack.enter_context(listing(orphans))
            on_images = stack.enter_context(counting("images read"))
            planned = plan_submission(prepared, settings, on_images, on_orphan)
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing was written") from None
    if as_json:
        _print_json(to_json(planned))
    else:
        report(planned)


@command.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@_narrowing
@click.option("--wait", is_flag=True, help="Stay until the jobs are finished; the exit status tells how.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def submit(files: tuple[Path, ...], limit: int | None, sample: int | None, wait: bool, as_json: bool) -> None:
    """Queue manifests: what their outputs lack.

    What an output holds already, by image_id, is not rendered again.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from producer import show
    from producer.progress import counting
    from producer.submit.prepare import prepare
    from producer.submit.submit import packed_for, store

    _one_of(limit, sample)
    settings, url, ledger = _connect()
    submitted = []
    with ExitStack() as stack, _gone_on_with():
        # All are read to their ends before the first is stored.
        prepared = [prepare(file, settings, limit=limit, sample=sample) for file in files]
        _one_output_each(files, prepared)
        ledger.ping()
        with counting("images read") as on_images:
            packed = [stack.enter_context(packed_for(one, ledger, on_images)) for one in prepared]
        for one in packed:
            with counting("images stored", one.images) as on_images:
                submitted.append(store(one, ledger, url, on_images, _say))
            if not as_json:
                show.print_submitted(submitted[-1])
    if not wait:
        if as_json:
            _print_json([asdict(one) for one in submitted])
        elif not ledger.workers():
            click.echo(_NO_WORKER)
        return
    ends = [_follow(ledger, one.job_id, quiet=as_json) for one in submitted]
    if as_json:
        _print_json([show.as_json(end) for end in ends])
    else:
        for end in ends:
            show.print_end(end)
    _exit_with(ends)


@command.command()
@click.argument("file", metavar="FILE", type=_FILE)
@_narrowing
@click.option(
    "--gpus", default="all", show_default=True, metavar="all|0,1|none", help="As of imagemill-worker."
)
@click.option("--keep", is_flag=True, help="Leave the data of the Redis that this command starts.")
def run(file: Path, limit: int | None, sample: int | None, gpus: str, keep: bool) -> None:
    """Render a manifest on this machine, here and now.

    A Redis (unless IMAGEMILL_REDIS_URL is set) and a worker are started for it and gone when it ends.

    Ctrl-C stops cleanly; the same command goes on where it stopped.
    """
    from jobs.settings import load_settings
    from producer import show
    from producer.run import run as run_all

    _one_of(limit, sample)
    status, _submitted = run_all(file, load_settings(), limit=limit, sample=sample, gpus=gpus, keep=keep)
    show.print_end(status)
    _exit_with([status])


@command.command()
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(job: str | None, as_json: bool) -> None:
    """Show all jobs, or one JOB in full.

    One job: counts, rate, time left, workers and failures.
    """
    from producer import show

    _settings, _url, ledger = _connect()
    workers = ledger.workers()
    if job is None:
        jobs = [ledger.status(job_id) for job_id in ledger.job_ids()]
        if as_json:
            _print_json({"jobs": [show.as_json(one) for one in jobs], "workers": workers})
        else:
            show.print_jobs(jobs, workers)
        return
    one, failures = ledger.status(job), ledger.failures(job)
    if as_json:
        _print_json({**show.as_json(one), "failures": failures, "alive": workers})
    else:
        show.print_job(one, workers, failures)


@command.command()
@click.argument("job")
def watch(job: str) -> None:
    """Follow JOB until it is finished.

    The exit status tells how it went. Ctrl-C ends the watching, not the job.
    """
    from producer import show

    _settings, _url, ledger = _connect()
    # Following goes on through an outage; a Redis that is away from the start is told.
    ledger.status(job)
    end = _follow(ledger, job, quiet=False)
    show.print_end(end)
    _exit_with([end])


@command.command()
@click.argument("job")
@click.option("--reason", default="", help="Kept with the job.")
def cancel(job: str, reason: str) -> None:
    """End JOB early; what is rendered stays.

    Submitting its manifest again renders the rest.
    """
    _connect()[2].control(job, "cancel", reason)
    click.echo(f"{job} is ending: shards that are being rendered are given up at their next step")


@command.command()
@click.argument("job")
def pause(job: str) -> None:
    """Let JOB wait; shards being rendered are finished."""
    _connect()[2].control(job, "pause")
    click.echo(f"{job} is paused: `imagemill resume {job}` goes on")


@command.command()
@click.argument("job")
def resume(job: str) -> None:
    """Go on with a paused JOB.

    It is offered again to workers that refused it, too.
    """
    _connect()[2].control(job, "resume")
    click.echo(f"{job} goes on")


@command.command()
@click.argument("job")
@click.option("--wait", is_flag=True, help="Stay until the job is finished again.")
def retry(job: str, wait: bool) -> None:
    """Send back what a finished JOB lacks.

    Its failures, and what was never rendered because it was cancelled or stopped.
    """
    from jobs.wording import counted
    from producer import show
    from producer.progress import counting
    from producer.submit.retry import retry as retry_job

    _settings, url, ledger = _connect()
    try:
        with counting("images sent back") as on_images:
            count = retry_job(job, ledger, url, on_images)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped before the end; {job} is as it was") from None
    click.echo(f"{job}: {counted(count, 'image')} sent back" if count else f"{job}: nothing is missing")
    if wait and count:
        end = _follow(ledger, job, quiet=False)
        show.print_end(end)
        _exit_with([end])


@command.command()
@click.argument("file", metavar="FILE", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recover(file: Path, as_json: bool) -> None:
    """Put back FILE's newest job, which Redis has lost.

    What is done and what failed is read from the output, the rest from the manifest, which must be as it was
    submitted. The job goes on under its id, with --limit or --sample where it had one.
    """
    from dataclasses import asdict

    from producer import show
    from producer.progress import counting
    from producer.submit.recover import recover as recover_job

    settings, url, ledger = _connect()
    try:
        with counting("images read") as on_images:
            recovered = recover_job(file, settings, ledger, url, on_images)
    except KeyboardInterrupt:
        raise Interrupted("stopped before the end; nothing was changed") from None
    if as_json:
        _print_json(asdict(recovered))
        return
    show.print_recovered(recovered)
    if not ledger.workers():
        click.echo(_NO_WORKER)


@command.command()
@click.argument("output", metavar="OUT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repair", is_flag=True, help="Set aside what is broken, and send it back to its job.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(output: Path, repair: bool, as_json: bool) -> None:
    """Prove an output folder, or name what is wrong in it.

    Every picture is there, whole and as it was written; no image is there twice; lines and files agree;
    nothing is missing that its manifests ask for. Exit status: 0 nothing is wrong, 1 something is, 2 bad
    input.

    --repair moves broken pictures and wrong lines to OUT/.imagemill/quarantine and, where Redis holds its
    finished job, sends it back; else submitting the manifest again renders what is lacking.
    """
    from jobs.output.output import Output
    from jobs.settings import load_settings
    from producer.doctor.doctor import diagnose, report, to_json

    diagnosis = diagnose(Output(output.resolve()), load_settings(), repair=repair)
    if as_json:
        _print_json(to_json(diagnosis))
    else:
        report(diagnosis)
    sys.exit(diagnosis.exit_code)


@command.command()
@click.argument("source", metavar="SOURCE", type=click.Path(exists=True, path_type=Path))
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    type=click.Choice(["files", "webdataset", "parquet"]),
    help="Pictures in folders; tars; or one table that holds the pictures.",
)
@click.option(
    "--only-current", type=_FILE, metavar="MANIFEST", help="Leave out what this manifest does not ask for."
)
@click.option("--shard-size", type=click.IntRange(1, 10_000), metavar="N", help="Images in a shard: 1000.")
@click.option("--no-pictures", is_flag=True, help="With --to parquet: the metadata alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    source: Path,
    target: Path,
    to: Form,
    only_current: Path | None,
    shard_size: int | None,
    no_pictures: bool,
    as_json: bool,
) -> None:
    """Write the pictures of SOURCE to TARGET in another form.

    SOURCE is an output, or a parquet that this command wrote, which gives back its rows exactly. TARGET, a
    folder or with --to parquet a file, appears whole or not at all. Pictures keep their bytes, and each is
    checked; failures are not exported. Equal outputs give equal exports.
    """
    from dataclasses import asdict

    from jobs.settings import load_settings
    from producer.export.export import export as write_export
    from producer.export.export import report

    exported = write_export(
        source.resolve(),
        target.resolve(),
        to,
        load_settings(),
        only_current=only_current,
        shard_size=shard_size,
        with_pictures=not no_pictures,
    )
    if as_json:
        _print_json(asdict(exported))
    else:
        report(exported)


@command.command()
def schema() -> None:
    """Print the JSON schema of manifests, for editors."""
    from producer.manifest.manifest import json_schema

    _print_json(json_schema())


def _one_output_each(files: Sequence[Path], prepared: Sequence[Prepared]) -> None:
    first: dict[Path, Path] = {}
    for file, one in zip(files, prepared, strict=True):
        other = first.setdefault(one.output.path, file)
        if other is not file:
            raise JobError(
                f"{other} and {file}: both write to {one.output.path}, one job at a time: submit the second "
                "when the first has finished, or name another output"
            )


@contextmanager
def _gone_on_with() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped in the middle: run the same command to go on") from None


def _connect() -> tuple[Settings, str, Ledger]:
    from jobs.connection import redis_url
    from jobs.ledger.ledger import Ledger
    from jobs.settings import load_settings

    settings = load_settings()
    url = redis_url(settings, _say)
    return settings, url, Ledger(url)


def _follow(ledger: Ledger, job_id: str, *, quiet: bool) -> JobStatus:
    from producer.follow import follow
    from producer.progress import show_progress

    statuses = follow(ledger, job_id, say=_say)
    try:
        if not quiet:
            return show_progress(statuses)
        for end in statuses:
            last = end
        return last
    except KeyboardInterrupt:
        raise Interrupted(
            f"no longer watching; {job_id} goes on: `imagemill watch {job_id}` follows it again, "
            f"`imagemill cancel {job_id}` ends it"
        ) from None


def _exit_with(ends: list[JobStatus]) -> None:
    from producer.follow import exit_code

    sys.exit(max(exit_code(end) for end in ends))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _one_of(limit: int | None, sample: int | None) -> None:
    if limit is not None and sample is not None:
        raise JobError("--limit and --sample exclude each other: give one")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def main() -> None:
    """The console script: an ImagemillError is one message on standard error and its exit status.

    SIGTERM is what Ctrl-C is.
    """
    try:
        with stops_raise(KeyboardInterrupt):
            sys.exit(command(standalone_mode=False))
    except ImagemillError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(Interrupted.exit_code)


if __name__ == "__main__":
    main()
