"""`imagemill run`: a Redis, a worker, a submission and its progress, in one command that cleans up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import click

from jobs.connection import publish, redis_url
from jobs.errors import Interrupted, SettingsError
from jobs.job import JobStatus
from jobs.ledger import Ledger
from jobs.lifeline import start_tied
from jobs.settings import PREFIX, Settings
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow
from producer.progress import show_progress
from producer.submit import Submitted, prepare, submit

_STOP_SECONDS = 130
"""A worker gives its shards back within a micro-batch; on a CPU that can be minutes."""


def run(
    path: Path, settings: Settings, *, limit: int | None, sample: int | None, gpus: str, keep: bool
) -> tuple[JobStatus, Submitted]:
    """Renders a manifest from nothing; returns how its job ended.

    Uses IMAGEMILL_REDIS_URL when it is set, else a Redis of its own that goes when this ends (`keep` leaves
    its data). Raises Interrupted after a clean stop: a second run goes on from there.
    """
    prepared = prepare(path, settings, limit=limit, sample=sample)
    with ExitStack() as stack:
        stack.enter_context(_stops_become_interrupts())
        if settings.redis_url is None:
            server = stack.enter_context(EmbeddedRedis(keep=keep))
            url = server.url
            stack.enter_context(publish(settings, url, prepared.output.path))
            if keep:
                click.echo(f"Redis' data: {server.folder}")
        else:
            url = redis_url(settings)
        ledger = Ledger(url)
        submitted = submit(prepared, ledger, url)
        print_submitted(submitted)
        worker = stack.enter_context(_worker(url, settings, prepared.output.path, gpus))
        status = show_progress(follow(ledger, submitted.job_id, check=worker.check))
    return status, submitted


def print_submitted(submitted: Submitted) -> None:
    """Says what a submission came to."""
    parts = [f"{submitted.job_id}: {submitted.images} images to render"]
    if submitted.held:
        parts.append(f"{submitted.held} are in the output already")
    if submitted.duplicates:
        parts.append(f"{submitted.duplicates} lines ask for an image that another line asks for too")
    if submitted.attached:
        parts.append("it was submitted before and goes on")
    click.echo(", ".join(parts))
    if submitted.remark:
        click.echo(f"{submitted.job_id}: {submitted.remark}")


class _Worker:
    """The `imagemill-worker` process of this run, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def check(self) -> None:
        """Raises when the worker is gone: then nobody renders."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-12:]
            raise SettingsError(
                "the worker ended (exit status {}); the end of its log, {}:\n{}".format(
                    self._process.returncode, self._log, "\n".join(f"  {line}" for line in lines)
                )
            )

    def stop(self) -> None:
        """Asks the worker to give back what it holds and waits for it to end."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _worker(url: str, settings: Settings, output: Path, gpus: str) -> Iterator[_Worker]:
    """A worker on this machine, tied to this process, writing only below this job's output."""
    command = shutil.which(
        "imagemill-worker", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if command is None:
        raise SettingsError(
            "`imagemill-worker` is not on PATH: install imagemill with its worker extra, "
            "pip install 'imagemill[worker]'"
        )
    environment = {**os.environ, f"{PREFIX}REDIS_URL": url}
    if settings.output_root is None:
        environment[f"{PREFIX}OUTPUT_ROOT"] = str(output)
    log = output / ".imagemill" / "worker.log"
    with log.open("ab") as file:
        process = start_tied([command, "--gpus", gpus], env=environment, stdout=file, stderr=file)
    worker = _Worker(process, log)
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def _stops_become_interrupts() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted once; while the run is taken down they are not heard."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(
            f"stopped by {signal.Signals(number).name}; what was rendered is kept: "
            "run the same command to go on"
        )

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
