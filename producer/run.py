"""`imagemill run`: a Redis, a worker, a submission and its progress, in one command that cleans up."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from pydantic import SecretStr

from jobs.connection import publish, redis_url
from jobs.errors import Interrupted, LedgerError, SettingsError
from jobs.ledger.job import JobStatus
from jobs.lifeline import start_tied
from jobs.output.output import open_plain
from jobs.settings import Settings
from jobs.user_cache import cache_folder
from producer.embedded_redis import EmbeddedRedis
from producer.follow import follow_job
from producer.job_queue import JobQueue
from producer.progress import counting, show_progress
from producer.reporter import StandardError
from producer.requests.prepared import Prepared
from producer.stops import stops_raise
from producer.submit.report import print_submitted
from producer.submit.submit import submit_manifest

_STOP_SECONDS = 130
"""How long a worker may take to stop: it finishes its forward first, which on a CPU can take minutes."""


def run_job(prepared: Prepared, settings: Settings, *, gpus: str, keep: bool) -> JobStatus:
    """Submits and renders a manifest on this machine; returns how its job ended.

    Uses IMAGEMILL_REDIS_URL when it is set, else a Redis of its own that ends with this call (`keep` leaves
    its data). `gpus`: as of `imagemill-worker --gpus`. Raises Interrupted after a clean stop; a second run
    then renders the rest.
    """
    output = prepared.output
    with ExitStack() as stack:
        stack.enter_context(stops_raise(_interrupted))
        server = lock = None
        if settings.redis_url is None:
            server = stack.enter_context(EmbeddedRedis(keep=keep))
            url = server.url
            output.prepare()
            # Another run has a Redis of its own: the output folder is all that both share.
            lock = stack.enter_context(output.locked())
            stack.enter_context(publish(settings, url, output.path))
            if keep:
                click.echo(f"Redis' data: {server.folder}")
        else:
            url = redis_url(settings)
        queue = JobQueue.at(url, allow_eviction=settings.allow_eviction)
        with counting("images submitted") as reporter:
            submitted = submit_manifest(prepared, queue, reporter)
        print_submitted(submitted)
        worker = stack.enter_context(_worker(url, settings, output.path, gpus, lock))

        def check() -> None:
            if server is not None and not server.alive:
                raise LedgerError(
                    "the Redis of this run ended; what was rendered is kept: run the same command to continue"
                )
            worker.check()

        statuses = follow_job(queue.ledger, submitted.job_id, StandardError(), check=check, own_worker=True)
        return show_progress(statuses)


def _interrupted(signal_name: str) -> Interrupted:
    return Interrupted(
        f"stopped by {signal_name}; what was rendered is kept: run the same command to continue"
    )


class _Worker:
    """The `imagemill-worker` process of this run, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def check(self) -> None:
        """Raises SettingsError, with the end of the log, when the worker has ended."""
        if self._process.poll() is not None:
            lines = self._log.read_text("utf-8", errors="replace").splitlines()[-12:]
            raise SettingsError(
                "the worker ended (exit status {}); the end of its log, {}:\n{}".format(
                    self._process.returncode, self._log, "\n".join(f"  {line}" for line in lines)
                )
            )

    def stop(self) -> None:
        """Makes the worker give back what it holds, and waits for its end; kills it after `_STOP_SECONDS`."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _log_of(output: Path) -> Path:
    """Where the log of an output's workers lies: outside of it, because a log names hosts and folders."""
    digest = hashlib.sha256(os.fsencode(output)).hexdigest()[:16]
    folder = cache_folder("runs") / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="imagemill-"))  # a home that cannot be written
    return folder / "worker.log"


@contextmanager
def _worker(url: str, settings: Settings, output: Path, gpus: str, lock: int | None) -> Iterator[_Worker]:
    """A worker on this machine, tied to this process, writing only below this job's output.

    It inherits `lock`, so that the output stays locked until it has ended, even if this process is killed.
    """
    command = shutil.which(
        "imagemill-worker", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if command is None:
        raise SettingsError(
            "`imagemill-worker` is not on PATH: install imagemill with its worker extra, "
            "pip install 'imagemill[worker]'"
        )
    # A worker limited to other models would leave this job waiting, and report nothing.
    chosen: dict[str, object] = {"redis_url": SecretStr(url), "models": ()}
    if settings.output_root is None:
        chosen["output_root"] = output
    log = _log_of(output)
    with os.fdopen(open_plain(log, os.O_WRONLY | os.O_APPEND), "ab") as file:
        process = start_tied(
            [command, "--gpus", gpus],
            env=settings.model_copy(update=chosen).environment(),
            pass_fds=() if lock is None else (lock,),
            stdout=file,
            stderr=file,
        )
    worker = _Worker(process, log)
    try:
        yield worker
    finally:
        worker.stop()
