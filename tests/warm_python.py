"""A Python that has imported what takes long, and gives each piece of code a process of its own by a fork.

What a process costs is mostly its imports: half a second of CPU for a command of `imagemill`, five for
`datasets`. The server imports them once; a fork of it has its own folder, environment, arguments and output,
and ends as any Python does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import selectors
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

COMMAND = "from producer.cli import main; main()"


class WarmPython:
    """The test's end. The server ends with the process that started it, which closes its standard input."""

    def __init__(self, *modules: str, **environment: str) -> None:
        """`environment`: what modules look at when they are imported."""
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, "-P", __file__, *modules],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(
        self, code: str, *arguments: str | Path, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `python -c CODE ARGUMENTS` comes to. Raises TimeoutExpired, and is of no use after that."""
        argv = list(map(str, arguments))
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._lock, tempfile.TemporaryDirectory() as folder, selectors.DefaultSelector() as answer:
            out, err = Path(folder, "out"), Path(folder, "err")
            asked = {
                "code": code,
                "argv": argv,
                "cwd": str(cwd),
                "env": dict(env),
                "output": [str(out), str(err)],
            }
            self._server.stdin.write(json.dumps(asked).encode() + b"\n")
            self._server.stdin.flush()
            answer.register(self._server.stdout, selectors.EVENT_READ)
            if not answer.select(timeout):
                self._server.kill()
                raise subprocess.TimeoutExpired(argv, timeout, out.read_bytes(), err.read_bytes())
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(argv, status, out.read_text(), err.read_text())


@cache
def warm_imagemill() -> WarmPython:
    """For `COMMAND`, with what most commands import."""
    rooms = ("cli", "submit.submit", "show", "doctor.doctor", "plan.plan", "export.export")
    return WarmPython(*(f"producer.{room}" for room in rooms), "pyarrow.parquet")


def _serve() -> dict[str, object]:
    """Forks for each line of standard input and gives the child's exit status; returns in the children."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # else a collection in a child would copy all that was imported
    for line in sys.stdin:
        asked: dict[str, object] = json.loads(line)
        child = os.fork()
        if child == 0:
            return asked
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
    sys.exit()


def _become(asked: dict[str, object]) -> None:
    """Makes this process what it would be had it been started so."""
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    sys.argv[1:] = asked["argv"]  # type: ignore[assignment]
    sys.argv[0] = "imagemill"
    for number, file in enumerate(["/dev/null", *asked["output"]]):  # type: ignore[misc]
        opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    random.seed()


if __name__ == "__main__":
    _asked = _serve()
    _become(_asked)
    exec(compile(str(_asked["code"]), "<string>", "exec"), {"__name__": "__main__"})
