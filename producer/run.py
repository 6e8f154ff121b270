"""`imagemill run`: a Redis, a worker, a submission and its progress, in one command that cleans up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from jobs.connection import publish, redis_url
from jobs.errors import Interrupted, LedgerError, SettingsError
from jobs.ledger.job import JobStatus
from jobs.ledger.ledger import Ledger
from jobs.lifeline import start_tied
from jobs.output.output import open_plain
from jobs.settings import PREFIX, Settings
from producer import show
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow
from producer.progress import counting, show_progress
from producer.stops import stops_raise
from producer.submit.prepare import prepare
from producer.submit.submit import Submitted, submit

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
    output = prepared.output
    with ExitStack() as stack:
        stack.enter_context(stops_raise(_interrupted))
        server = lock = None
        if settings.redis_url is None:
            server = stack.enter_context(EmbeddedRedis(keep=keep))
            url = server.url
            output.prepare()
            # The Redis of another run knows nothing of this one: only the folder is common to both.
            lock = stack.enter_context(output.locked())
            stack.enter_context(publish(settings, url, output.path))
            if keep:
                click.echo(f"Redis' data: {server.folder}")
        else:
            url = redis_url(settings)
        ledger = Ledger(url)
        with counting("images submitted") as on_images:
            submitted = submit(prepared, ledger, url, on_images, _say)
        show.print_submitted(submitted)
        worker = stack.enter_context(_worker(url, settings, output.path, gpus, lock))

        def check() -> None:
            if server is not None and not server.alive:
                raise LedgerError(
                    "the Redis of this run ended; what was rendered is kept: run the same command to go on"
                )
            worker.check()

        statuses = follow(ledger, submitted.job_id, check=check, say=_say, own_worker=True)
        status = show_progress(statuses)
    return status, submitted


def _interrupted(signal_name: str) -> Interrupted:
    return Interrupted(f"stopped by {signal_name}; what was rendered is kept: run the same command to go on")


def _say(line: str) -> None:
    click.echo(line, err=True)


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
def _worker(url: str, settings: Settings, output: Path, gpus: str, lock: int | None) -> Iterator[_Worker]:
    """A worker on this machine, tied to this process, writing only below this job's output.

    It inherits `lock`, so that the output stays locked until it has ended, also when this process is killed.
    """
    command = shutil.which(
        "imagemill-worker", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if command is None:
        raise SettingsError(
            "`imagemill-worker` is not on PATH: install imagemill with its worker extra, "
            "pip install 'imagemill[worker]'"
        )
    # A worker that took other models only would leave this job waiting without a word.
    chosen = {f"{PREFIX}REDIS_URL": url, f"{PREFIX}MODELS": ""}
    if settings.output_root is None:
        chosen[f"{PREFIX}OUTPUT_ROOT"] = str(output)
    # The settings' names are read in any case: a lower-case one must not stand beside ours.
    environment = {key: value for key, value in os.environ.items() if key.upper() not in chosen} | chosen
    log = output / ".imagemill" / "worker.log"
    with os.fdopen(open_plain(log, os.O_WRONLY | os.O_APPEND), "ab") as file:
        process = start_tied(
            [command, "--gpus", gpus],
            env=environment,
            pass_fds=() if lock is None else (lock,),
            stdout=file,
            stderr=file,
        )
    worker = _Worker(process, log)
    try:
        yield worker
    finally:
        worker.stop()
