"""The commands that take a job. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from jobs.command_line import done_all_the_same
from producer.session import Session, exit_with, json_option, pass_session, print_json
from producer.stops import interruptible

if TYPE_CHECKING:
    from jobs.ledger.job import Controlled


@click.command()
@click.argument("job", required=False)
@json_option
@pass_session
def status(session: Session, job: str | None, as_json: bool) -> None:
    """Show all jobs, or one JOB in full.

    Of one job: counts, rate, time left, workers, what it waits for, and failures.
    """
    from jobs.ledger.eviction import eviction_trouble, redis_memory
    from producer import show
    from producer.show_waits import print_wait, print_waits, waits_as_json

    ledger = session.ledger
    workers, memory = ledger.workers(), redis_memory(ledger.client)
    trouble = eviction_trouble(memory.policy)
    if job is None:
        # What was imported stays. While thousands of jobs are read it need not be searched for garbage.
        gc.freeze()
        jobs = ledger.jobs()
        if as_json:
            print_json(
                {
                    "jobs": [
                        {**show.as_json(one), "waits": waits_as_json(one, workers, memory.full)}
                        for one in jobs
                    ],
                    "workers": workers,
                    "redis": {"maxmemory_policy": memory.policy, "full": memory.full},
                }
            )
        else:
            show.print_jobs(jobs, workers)
            print_waits(jobs, workers, memory.full)
            show.print_warning(trouble)
        return
    one, failures = ledger.status(job), ledger.failures(job)
    if as_json:
        print_json(
            {
                **show.as_json(one),
                "waits": waits_as_json(one, workers, memory.full),
                "failures": failures,
                "alive": workers,
                "redis": {"maxmemory_policy": memory.policy, "full": memory.full},
            }
        )
    else:
        show.print_job(one, workers, failures)
        print_wait(one, workers, memory.full)
        show.print_warning(trouble)


@click.command()
@click.argument("job", required=False)
@pass_session
def watch(session: Session, job: str | None) -> None:
    """Follow JOB until it is finished; without JOB, the one that is unfinished.

    Exit status: 0 every image is there, 1 some failed or the job was ended early. Ctrl-C ends the watching,
    not the job.
    """
    if job is None:
        job = _only_unfinished(session)
    # Following waits out an outage; a Redis that is away from the start is an error.
    session.ledger.status(job)
    exit_with([session.follow(job)])


def _only_unfinished(session: Session) -> str:
    """The id of the only unfinished job. Raises JobError where there is none, or are several."""
    from jobs.errors import JobError
    from jobs.ledger.job import UnreadableJob
    from jobs.wording import some

    jobs = session.ledger.jobs()
    ids = [job.job_id for job in jobs if isinstance(job, UnreadableJob) or job.state != "finished"]
    if not ids:
        raise JobError("no job in this Redis is unfinished: name one, `imagemill watch JOB`")
    if len(ids) > 1:
        raise JobError(f"several jobs are unfinished ({some(ids)}): name one, `imagemill watch {ids[-1]}`")
    return ids[0]


@click.command()
@click.argument("job")
@click.option("--reason", default="", help="Recorded with the job.")
@pass_session
def cancel(session: Session, job: str, reason: str) -> None:
    """End JOB early; what is rendered stays.

    Submitting its manifest again renders the rest. A job that cannot be read in Redis is removed there.
    """
    from producer.submit.writing import cancel_job

    def tell(came_to: Controlled) -> None:
        session.confirm()
        said = {
            "ok": f"{job} is ending",
            "ended": f"{job} has ended, without its report, which no worker would write: its output keeps "
            "what was rendered, and submitting its manifest again renders the rest and writes the report",
            "dropped": f"{job} could not be read: what was left of it in Redis is removed; its output keeps "
            "what was rendered, and submitting its manifest again renders the rest",
        }[came_to]
        with done_all_the_same(said):
            click.echo(f"{said}: {_what_ends(session, job)}" if came_to == "ok" else said)

    cancel_job(session.ledger, job, reason, tell)


def _what_ends(session: Session, job: str) -> str:
    """What ends a job that is ending."""
    from jobs.errors import ImagemillError
    from producer.why_waiting import why_it_waits

    usual = "workers give up its shards at their next step"
    try:
        wait = why_it_waits(session.ledger.status(job), session.ledger.workers())
    except ImagemillError:  # it cannot be read, or is gone meanwhile; it is cancelled all the same
        return usual
    return wait.text if wait is not None and wait.kind in ("ending", "refused") else usual


@click.command()
@click.argument("job")
@pass_session
def pause(session: Session, job: str) -> None:
    """Pause JOB; shards that are being rendered are finished."""
    session.ledger.control(job, "pause")
    session.confirm()
    with done_all_the_same(f"{job} is paused"):
        click.echo(f"{job} is paused: `imagemill resume {job}` continues it")


@click.command()
@click.argument("job")
@pass_session
def resume(session: Session, job: str) -> None:
    """Continue a paused JOB.

    It is also offered again to workers that refused it, and what Redis lost of its keys is put back.
    """
    session.ledger.control(job, "resume")
    session.confirm()
    with done_all_the_same(f"{job} continues"):
        click.echo(f"{job} continues")


@click.command()
@click.argument("job")
@click.option("--wait", is_flag=True, help="Wait until the job is finished again.")
@pass_session
def retry(session: Session, job: str, wait: bool) -> None:
    """Send back what a finished JOB lacks.

    Its failures, and what was not rendered because it was cancelled or stopped.
    """
    from jobs.wording import counted
    from producer.progress import counting
    from producer.submit.retry import retry_job

    queue = session.queue
    with (
        interruptible(f"stopped before the end; {job} is as it was"),
        counting("images sent back") as reporter,
    ):
        count = retry_job(job, queue, reporter)
        session.confirm()
    came_to = f"{job}: {counted(count, 'image')} sent back" if count else f"{job}: nothing is missing"
    with done_all_the_same(came_to):
        click.echo(came_to)
    if wait and count:
        exit_with([session.follow(job)])
