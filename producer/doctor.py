"""`imagemill doctor`: an output proved or its problems named, and, if asked, what is broken set aside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click

from jobs.checkup import Checkup, check_output
from jobs.connection import live_connections, redis_url
from jobs.errors import Interrupted, JobError
from jobs.findings import Problem, counted
from jobs.layouts.stored_shard import shard_name
from jobs.ledger_view import LedgerView
from jobs.output import Output
from jobs.quarantine import Repair, as_json, set_aside
from jobs.settings import Settings
from producer.progress import counting


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An output as it is now, and what was done to it before."""

    output: Output
    checkup: Checkup
    repair: Repair | None = None

    @property
    def exit_code(self) -> int:
        """0 when nothing is wrong any more, else 1."""
        return 1 if self.checkup.problems else 0


def diagnose(output: Output, settings: Settings, *, repair: bool) -> Diagnosis:
    """Examine an output and, with `repair`, set aside what is broken in it.

    Raises JobError instead of repairing while a job writes there, Interrupted after Ctrl-C.
    """
    with ExitStack() as stack:
        if repair and output.private.is_dir():
            stack.enter_context(output.locked(patience=0))
        if repair:
            _refuse_while_written(output, settings)
        try:
            with counting("shards examined") as on_shard:
                found = check_output(output, on_shard=on_shard)
            done = set_aside(output, found.problems) if repair else None
            if done is None:
                return Diagnosis(output, found)
            known = [shard for shard in found.shards if shard_name(shard.shard) not in done.shards]
            return Diagnosis(output, check_output(output, known=known), done)
        except KeyboardInterrupt:
            raise Interrupted(f"{output.path}: stopped before the end: run the same command again") from None


def _refuse_while_written(output: Output, settings: Settings) -> None:
    """The lock tells of an `imagemill run`; of workers elsewhere only the ledger knows."""
    if settings.redis_url is None and not live_connections(settings):
        return
    ledger = LedgerView(redis_url(settings))
    job_id = ledger.writer(str(output.path))
    if job_id is not None:
        raise JobError(
            f"{output.path}: {job_id} is writing there: wait for it (`imagemill watch {job_id}`) or "
            f"`imagemill cancel {job_id}`, then repair; without --repair the output may be examined now"
        )


def report(diagnosis: Diagnosis) -> None:
    """Print a line for each problem, what was mended, and how the output stands."""
    checkup, repair = diagnosis.checkup, diagnosis.repair
    if repair is not None:
        for problem in repair.problems:
            click.echo(f"{problem.place}: {problem.what}; set aside")
        click.echo(f"{counted(len(repair.problems), 'problem')} set aside in {repair.folder}\n")
    for problem in checkup.problems:
        click.echo(f"{problem.place}: {problem.what}; {problem.remedy}")
    for note in checkup.notes:
        click.echo(f"note: {note}")
    failed = f", {checkup.failed} failed" if checkup.failed else ""
    held = f"{counted(checkup.images, 'image')} in {counted(len(checkup.shards), 'shard')}{failed}"
    wrong = counted(len(checkup.problems), "problem") if checkup.problems else "nothing is wrong"
    click.echo(f"{diagnosis.output.path}: {held}: {wrong}")


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The same as JSON values."""
    checkup, repair = diagnosis.checkup, diagnosis.repair
    return {
        "output": str(diagnosis.output.path),
        "images": checkup.images,
        "shards": len(checkup.shards),
        "failed": checkup.failed,
        "missing": checkup.missing,
        "problems": _all_as_json(checkup.problems),
        "notes": checkup.notes,
        "set_aside": [] if repair is None else _all_as_json(repair.problems),
        "quarantine": None if repair is None else str(repair.folder),
    }


def _all_as_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [as_json(problem) for problem in problems]
