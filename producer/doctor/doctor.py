"""`imagemill doctor`: an output proved, or its problems named and, if asked, set aside and sent back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from jobs.connection import live_connections, redis_url
from jobs.errors import ImagemillError, Interrupted, OutputError
from jobs.ledger.ledger_view import LedgerView
from jobs.output.output import Output
from jobs.output.output_lock import locked
from jobs.output.stored_shard import StoredShard
from jobs.settings import Settings
from jobs.wording import counted
from producer.doctor.checkup import Checkup, check_output
from producer.doctor.findings import Problem
from producer.doctor.mend_table import write_table_again
from producer.doctor.quarantine import Repair, as_json, set_aside
from producer.progress import counting
from producer.reporter import StandardError


@dataclass(frozen=True, slots=True)
class SentBack:
    """What became of pictures that a repair set aside."""

    images: Mapping[str, int] = field(default_factory=dict)
    """Jobs that go on -> images that they lacked, and that wait in the ledger now."""
    notes: Sequence[str] = ()
    """Why other jobs do not."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An output as it is now, and what was done to it before."""

    output: Output
    checkup: Checkup
    repair: Repair | None = None
    sent_back: SentBack = field(default_factory=SentBack)

    @property
    def exit_code(self) -> int:
        """0 when nothing is wrong any more, else 1."""
        return 1 if self.checkup.problems else 0

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, with the remedy that is left."""
        names = {_name_of(job_id): job_id for job_id in self.sent_back.images}
        return [
            replace(problem, remedy=f"`imagemill watch {names[name]}` follows what was sent back")
            if problem.kind == "missing" and (name := _name_of(Path(problem.file).stem)) in names
            else problem
            for problem in self.checkup.problems
        ]

    @property
    def notes(self) -> list[str]:
        """Harmless, but worth saying."""
        return [*self.sent_back.notes, *self.checkup.notes]


def diagnose(output: Output, settings: Settings, *, repair: bool) -> Diagnosis:
    """Examine an output and, with `repair`, set aside what is broken in it and send it back.

    Raises JobError instead of repairing while a job writes there, Interrupted after Ctrl-C.
    """
    with ExitStack() as stack:
        if repair and output.private.is_dir():
            stack.enter_context(locked(output, patience=0))
        mending = stack.enter_context(ExitStack())
        if repair:
            _refuse_while_written(output, settings)
            mending.enter_context(_held(output, settings))
        left = "stopped before the end: run the same command again"
        try:
            with counting("shards examined") as reporter:
                found = check_output(output, reporter=reporter)
            done = set_aside(output, found.problems) if repair else None
            if done is None:
                return Diagnosis(output, found)
            left = (
                f"stopped after all that is broken was moved to {output.named(done.folder)}: submit the "
                "manifest again"
            )
            write_table_again(output, done.folder)
            known = [shard for shard in found.shards if shard.shard not in done.shards]
            after = check_output(output, known=known)
            mending.close()  # jobs that go on take the output themselves
            return Diagnosis(output, after, done, _send_back(output, done, settings))
        except KeyboardInterrupt:
            raise Interrupted(f"{output.label}: {left}") from None


def _refuse_while_written(output: Output, settings: Settings) -> None:
    """The lock shows an `imagemill run`; only the ledger knows of workers elsewhere."""
    if settings.redis_url is None and not live_connections(settings):
        return
    then = "repair; without --repair the output may be examined now"
    LedgerView(redis_url(settings)).refuse_while_written(output.label, then)


@contextmanager
def _held(output: Output, settings: Settings) -> Iterator[None]:
    """Keeps jobs out that another Redis has for the output, where it is in a bucket."""
    if not output.in_bucket:
        yield
        return
    from producer.job_queue import connect
    from producer.submit.output_writes import write_errors
    from producer.submit.writing import writing

    has_redis = settings.redis_url is not None or bool(live_connections(settings))
    queue = connect(settings) if has_redis else None
    with ExitStack() as stack:
        with write_errors(output):
            stack.enter_context(writing(output, queue, "a repair", StandardError()))
        yield


def _send_back(output: Output, repair: Repair, settings: Settings) -> SentBack:
    """Begin the next runs of the jobs that rendered what was set aside, where Redis holds them.

    Raises no ImagemillError: the repair is done, and an error of Redis must not hold back its report.
    """
    sent: dict[str, int] = {}
    notes: list[str] = []
    try:
        # Without a Redis there are no jobs, and what is missing says itself what to do.
        if settings.redis_url is None and not live_connections(settings):
            return SentBack()
        from producer.job_queue import connect
        from producer.submit.retry import retry_job

        queue = connect(settings)
        ledger = queue.ledger
        job_ids = sorted(_jobs_of(output, repair) & {*ledger.job_ids()})
    except ImagemillError as error:
        return SentBack(notes=[f"what was set aside was not sent back: {error}"])
    for job_id in job_ids:
        try:
            status = ledger.status(job_id)
            if status.output != output.label:
                continue  # it writes to another output: Redis was wiped since, and gave its id to another job
            if status.outcome in {"cancelled", "stopped"}:
                # Its next run would also render what a person, or its bound of failures, had stopped.
                notes.append(
                    f"{job_id} was {status.outcome}: `imagemill retry {job_id}` sends back what was set "
                    "aside, and all else that it left"
                )
                continue
            with counting("images sent back") as reporter:
                if images := retry_job(job_id, queue, reporter):
                    sent[job_id] = images
        except ImagemillError as error:
            notes.append(f"sending back what {job_id} lacks: {error}")
    return SentBack(sent, notes)


def _jobs_of(output: Output, repair: Repair) -> set[str]:
    """The jobs of the shards that the repair took pictures out of, as named by what is left there and what
    was cut."""
    parts = {output.names.part(one.file) for one in repair.problems if _costs_pictures(one)}
    aside = Output.at(output.named(repair.folder)).with_names(output.names)
    found = {
        _job_of(shard)
        for number in {part.shard for part in parts if part is not None}
        for place in (output, aside)
        for shard in (place.stored(number, "files"), place.stored(number, "webdataset"))
    }
    return {job_id for job_id in found if isinstance(job_id, str)}


def _costs_pictures(problem: Problem) -> bool:
    """Whether the output may lack an image because of the problem."""
    cut = problem.cut
    if cut is None or problem.kind == "doubled":
        return False
    return cut.whole or bool(cut.positions) or problem.kind in {"line", "tar"}


def _job_of(shard: StoredShard) -> object:
    """The job that the first readable record or failure names; None without one."""
    with suppress(OutputError, OSError):
        for record in shard.records():
            return record.get("job_id")
    with suppress(OutputError, OSError):
        for failure in shard.failures():
            return failure.job_id
    return None


def _name_of(job_id: str) -> str:
    return job_id.rpartition("-")[0]


def report(diagnosis: Diagnosis) -> None:
    """Print a line for each problem, what was mended, and how the output stands."""
    checkup, repair = diagnosis.checkup, diagnosis.repair
    if repair is not None:
        for problem in repair.problems:
            click.echo(f"{problem.place}: {problem.what}; set aside")
        click.echo(
            f"{counted(len(repair.problems), 'problem')} set aside in {diagnosis.output.named(repair.folder)}"
        )
        for job_id, images in diagnosis.sent_back.images.items():
            click.echo(f"sent back {counted(images, 'image')} of {job_id}")
        click.echo()
    for problem in diagnosis.problems:
        click.echo(f"{problem.place}: {problem.what}; {problem.remedy}")
    for note in diagnosis.notes:
        click.echo(f"note: {note}")
    failed = f", {checkup.failed} failed" if checkup.failed else ""
    held = f"{counted(checkup.images, 'image')} in {counted(len(checkup.shards), 'shard')}{failed}"
    wrong = counted(len(checkup.problems), "problem") if checkup.problems else "nothing is wrong"
    click.echo(f"{diagnosis.output.label}: {held}: {wrong}")


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The same as JSON values."""
    checkup, repair = diagnosis.checkup, diagnosis.repair
    return {
        "output": diagnosis.output.label,
        "images": checkup.images,
        "shards": len(checkup.shards),
        "failed": checkup.failed,
        "missing": checkup.missing,
        "problems": _all_as_json(diagnosis.problems),
        "notes": diagnosis.notes,
        "set_aside": [] if repair is None else _all_as_json(repair.problems),
        "quarantine": None if repair is None else diagnosis.output.named(repair.folder),
        "sent_back": dict(diagnosis.sent_back.images),
    }


def _all_as_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [as_json(problem) for problem in problems]
