"""Programs of Python that begin as copies of one which has imported what takes long (`tests.forked`).

What a process costs is mostly its imports: half a second of CPU for a command of `imagemill`, five for
`datasets`, seven for a worker with torch. Where a copy could differ from a process of its own, by a variable
that a library reads when it is imported, or on a system without Linux' `prctl`, the program is started as
ever.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests import forked

BIN = Path(sys.executable).parent
_PARAMETERS = forked._PARAMETERS


class WarmPython:
    """The test's end. The server ends with the process that started it, which closes its socket."""

    def __init__(self, *modules: str, **environment: str) -> None:
        """`environment`: what modules look at when they are imported."""
        self.environment = {**os.environ, **environment}
        hub = any(module.partition(".")[0] in forked.HUB for module in modules)
        self.forkable = forked.Forkable(self.environment, hub=hub)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, forked.MESSAGE)
            self._server = subprocess.Popen(
                [sys.executable, "-P", forked.__file__, str(theirs.fileno()), *modules],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def popen(self, args: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """As `subprocess.Popen`: a child of this process."""
        return _Popen(self, args, **options)

    def run(
        self, code: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `python -c CODE ARGUMENTS` comes to."""
        return self.call([sys.executable, "-c", code, *arguments], cwd=cwd, env=env, timeout=timeout)

    def call(
        self, args: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end. Raises TimeoutExpired after it has killed it."""
        process = self.popen(
            args, cwd=cwd, env=env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def fork(self, asked: Mapping[str, Any], files: list[int]) -> int:
        """Forks a copy that becomes what is asked; returns its process id."""
        with self._lock:
            forked.adopt(True)
            try:
                socket.send_fds(self._socket, [json.dumps(asked).encode()], files)
                return int(self._socket.recv(32))
            finally:
                forked.adopt(False)


class _Popen(subprocess.Popen[Any]):
    def __init__(self, python: WarmPython, args: Sequence[str | Path], **options: Any) -> None:
        self._python = python
        super().__init__(args, **options)

    def _execute_child(self, *given: Any) -> None:
        told = dict(zip(_PARAMETERS, given, strict=True))
        if sys.platform != "linux" or not self._python.forkable(told):
            super()._execute_child(*given)
            return
        self.pid = self._python.fork(*forked.asked_of(told))
        self._child_created = True
        self._close_pipe_fds(*(told[name] for name in _PARAMETERS if name.endswith(("read", "write"))))


_ROOMS = (
    *("cli", "doctor.doctor", "export.export", "plan.plan", "run", "serve.app", "show", "submit.submit"),
    *("serve.gallery.gallery_pages", "serve.job_pages"),
)
_MODULES = (
    # Of a worker only its supervisor: tests change the rest before it is imported, as tests/troubled does.
    *(f"producer.{room}" for room in _ROOMS),
    *("worker.cli", "worker.host.imagemill_worker"),
    *("PIL.Image", "numpy", "pyarrow.parquet", "redis.asyncio", "rich.live", "rich.progress", "yaml"),
    *("PIL.ImageDraw", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin", "uvicorn.main"),
    "pandas",  # where it is installed, pyarrow imports it for the first list that it takes
    *("celery.apps.worker", "celery.bin.celery", "celery.concurrency.thread", "celery.worker.consumer"),
    *("celery.backends.redis", "kombu.transport.redis", "zstandard"),
)


@cache
def warm_imagemill() -> WarmPython:
    """For every program of this repository; a worker imports torch itself when it loads a model."""
    return WarmPython(*_MODULES)


@cache
def warm_painter() -> WarmPython:
    """For those that load a diffusion model."""
    return WarmPython(
        *_MODULES,
        *("diffusers.pipelines.auto_pipeline", "safetensors.torch"),
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        TRANSFORMERS_VERBOSITY="error",
    )
