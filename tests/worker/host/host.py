"""A supervisor with stand-in worker processes, and what can be seen of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.processes import runs
from tests.waiting import LONGEST
from worker.host.leaving import Leaving

ROOT = Path(__file__).parents[3]
A, B = (f"GPU-0000000{digit}-aaaa-bbbb-cccc-dddddddddddd" for digit in "ab")

# Stands in for Celery: notes each start, then does what its node is told to.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
from jobs.lifeline import end_with_parent

here, node, slots, level = Path(sys.argv[1]), *sys.argv[2:]
behaviour = json.loads((here / "behaviour.json").read_text()).get(node.split("@")[0], "work")
if behaviour == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(0)))
end_with_parent(grace=5)
environment = {k: v for k, v in os.environ.items() if k.startswith(("IMAGEMILL_", "CUDA_", "LIFELINE"))}
note = {"pid": os.getpid(), "node": node, "slots": slots, "level": level, "env": environment}
with (here / "starts.jsonl").open("a") as starts:
    starts.write(json.dumps(note) + "\\n")
if behaviour in ("refuse", "die"):
    sys.exit({"refuse": 2, "die": 1}[behaviour])
time.sleep(1000)
"""

SUPERVISOR = """
import json, os, sys
from jobs.errors import ImagemillError
from jobs.settings import load_settings
from pathlib import Path
from worker.host.imagemill_worker import run_worker
from worker.host.leaving import Leaving
from worker.host.supervisor import Pace

here, given, pace = sys.argv[1], json.loads(sys.argv[2]), Pace(**json.loads(sys.argv[3]))
def stand_in(node, slots, level):
    return [sys.executable, here + "/stand_in.py", here, node, str(slots), level]
fd = os.environ.get("LIFELINE_FD")
try:
    sys.exit(run_worker(
        load_settings(**given["settings"]), gpu_choice=given["gpus"], name="host",
        lifeline_fd=None if fd is None else int(fd), argv=stand_in, pace=pace,
        leaving=Leaving(given["until_idle"], given["patience"], given["notice"] and Path(given["notice"])),
    ))
except ImagemillError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""

PARENT = """
import sys, time
from jobs.lifeline import start_tied
start_tied([sys.executable, *sys.argv[1:]])
time.sleep(1000)
"""


class Host:
    """A supervisor with stand-in children, and what can be seen of them."""

    def __init__(self, folder: Path, wait_until: Callable[..., None]) -> None:
        self.folder = folder
        self.wait_until = wait_until
        (folder / "stand_in.py").write_text(STAND_IN)
        (folder / "supervisor.py").write_text(SUPERVISOR)
        (folder / "parent.py").write_text(PARENT)
        self.starts_file = folder / "starts.jsonl"
        self.log_file = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.family: list[psutil.Process] = []

    def start(
        self,
        url: str,
        behaviour: dict[str, str] | None = None,
        pace: dict[str, float] | None = None,
        tied: bool = False,
        gpus: str = "all",
        leaving: Leaving | None = None,
        **settings: Any,
    ) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour or {}))
        quick = {"first_pause": 0.05, "longest_pause": 0.2, "grace": 20, "orphan_grace": 0.5, **(pace or {})}
        script = [str(self.folder / "supervisor.py"), str(self.folder)]
        leaving = Leaving() if leaving is None else leaving
        given = {
            "gpus": gpus,
            "settings": settings,
            "until_idle": leaving.until_idle,
            "patience": leaving.redis_patience,
            "notice": None if leaving.spot_notice is None else str(leaving.spot_notice),
        }
        argv = [*script, json.dumps(given), json.dumps(quick)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *([str(self.folder / "parent.py")] if tied else []), *argv],
                env={**os.environ, "PYTHONPATH": str(ROOT), "IMAGEMILL_REDIS_URL": url},
                stderr=log,
            )

    def starts(self, count: int) -> list[dict[str, Any]]:
        """The first `count` starts of children, in order."""

        def read() -> list[dict[str, Any]]:
            if not self.starts_file.exists():
                return []
            return [json.loads(line) for line in self.starts_file.read_text().splitlines()]

        self.wait_until(lambda: len(read()) >= count, f"{count} starts; the log:\n{self.log}")
        self.look()
        return read()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for_log(self, text: str) -> None:
        self.wait_until(lambda: text in self.log, f"{text!r} in the log")

    def look(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.family = psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(LONGEST)

    def wait_for_the_end_of_all(self) -> None:
        self.wait_until(lambda: not [p for p in self.family if runs(p)], f"the end of {self.family}")
