"""A worker of a command's own: `imagemill-worker` on this machine, which ends with the command."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from jobs.errors import SettingsError
from jobs.lifeline import start_tied
from jobs.plain_file import open_or_make
from jobs.settings import Settings
from jobs.user_cache import cache_folder

_STOP_SECONDS = 130
"""How long a worker may take to stop: it finishes its forward first, which on a CPU can take minutes."""


class OwnWorker:
    """The `imagemill-worker` process of a command, and its log."""

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


def _log_of(output: str) -> Path:
    """Where the log of an output's workers lies: outside of it, because a log names hosts and folders."""
    digest = hashlib.sha256(os.fsencode(output)).hexdigest()[:16]
    folder = cache_folder("runs") / digest
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="imagemill-"))  # a home that cannot be written
    return folder / "worker.log"


@contextmanager
def own_worker(
    url: str,
    settings: Settings,
    output: str,
    gpus: str,
    lock: int | None = None,
    *,
    root: str | None = None,
) -> Iterator[OwnWorker]:
    """Runs a worker on this machine until the block ends, or this process.

    It writes only below the settings' root; where they have none, below `root`, by default `output`. Its log,
    in the user's cache, is that of `output`. `gpus`: as of `imagemill-worker --gpus`. It inherits `lock`, so
    that the output stays locked until it has ended, even if this process is killed. Raises SettingsError if
    `imagemill-worker` is not installed.
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
        chosen["output_root"] = output if root is None else root
    log = _log_of(output)
    with os.fdopen(open_or_make(log, os.O_WRONLY | os.O_APPEND), "ab") as file:
        process = start_tied(
            [command, "--gpus", gpus],
            env=settings.model_copy(update=chosen).environment(),
            pass_fds=() if lock is None else (lock,),
            stdout=file,
            stderr=file,
        )
    worker = OwnWorker(process, log)
    try:
        yield worker
    finally:
        worker.stop()
