"""What every command works with: the settings, the queue that they name, and a job that is followed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from jobs.local_path import LocalPath
from producer.reporter import StandardError
from producer.stops import interruptible

if TYPE_CHECKING:
    from jobs.ledger.job import JobStatus
    from jobs.ledger.ledger import Ledger
    from jobs.settings import Settings
    from producer.job_queue import JobQueue

_Shown = TypeVar("_Shown")


class Session:
    """One command's settings, and its queue, which is connected at its first use."""

    @cached_property
    def settings(self) -> Settings:
        """The settings from the environment. Raises SettingsError."""
        from jobs.settings import load_settings

        return load_settings()

    @cached_property
    def queue(self) -> JobQueue:
        """The queue that the settings name. Raises SettingsError, LedgerError."""
        from producer.job_queue import connect

        return connect(self.settings, StandardError())

    @property
    def ledger(self) -> Ledger:
        """The ledger of the queue."""
        return self.queue.ledger

    def confirm(self) -> None:
        """Waits until a replica has what this command changed; says so on standard error if none has it.

        Nothing is to be waited for without Sentinels. A Redis that is full or away now has the change all the
        same, and the command goes on to say so.
        """
        from jobs.errors import LedgerUnavailable
        from jobs.ledger.replicas import replica_has_it

        try:
            has_it = replica_has_it(self.ledger.client)
        except LedgerUnavailable:
            has_it = False
        if not has_it:
            StandardError().line(
                "note: no replica of this Redis has it yet: if the master is lost before one does, run the "
                "same command again"
            )

    def follow(self, job_id: str, *, quiet: bool = False) -> JobStatus:
        """Shows a job's progress, unless `quiet`, until it is finished; returns how it ended.

        Raises Interrupted after Ctrl-C, which leaves the job alone.
        """
        from producer.follow import follow_job
        from producer.progress import show_progress

        statuses = follow_job(self.ledger, job_id, StandardError())
        with interruptible(
            f"no longer watching; {job_id} continues: `imagemill watch {job_id}` shows it again, "
            f"`imagemill cancel {job_id}` ends it"
        ):
            if not quiet:
                return show_progress(statuses)
            *_, end = statuses
            return end


FILE = LocalPath("a file", exists=False, dir_okay=False)
"""The type of an argument that names a file."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
pass_session = click.make_pass_decorator(Session, ensure=True)
"""Gives a command its session as the first argument."""


def emit(
    value: _Shown,
    as_json: bool,
    show: Callable[[_Shown], object],
    to_json: Callable[[_Shown], object] = asdict,  # type: ignore[assignment]
) -> None:
    """Prints a command's result: as JSON of `to_json`, or as `show` does."""
    if as_json:
        print_json(to_json(value))
    else:
        show(value)


def print_json(value: object) -> None:
    """Prints JSON for people and scripts; what standard output's encoding lacks is escaped as JSON does."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        # json.dumps takes eight times as long where it indents.
        text = to_json(value, indent=2, inf_nan_mode="constants").decode()
        text.encode(sys.stdout.encoding)
    except (PydanticSerializationError, UnicodeEncodeError):
        text = json.dumps(value, indent=2)
    click.echo(text)


def exit_with(ends: Sequence[JobStatus], as_json: bool = False) -> NoReturn:
    """Prints how jobs ended; exits with 0 when every image is there, else with 1."""
    from producer import show
    from producer.follow import exit_code

    if as_json:
        print_json([show.as_json(end) for end in ends])
    else:
        for end in ends:
            show.print_end(end)
    sys.exit(max(exit_code(end) for end in ends))
