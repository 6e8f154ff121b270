"""Orders that a test gives to a process with armed failpoints: die here, freeze there, find the disk full.

An order is a file in a folder that both know, `N.json`. The process that carries it out first makes
`N.met`, which no second one can, so an order given to several kills one; and the test sees that the fault
really happened, and that a process that is started again does not die of it twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

FOLDER, NAME, CLOCK = "FAULTS_ORDERS", "FAULTS_NAME", "FAULTS_CLOCK"
"""Environment variables: the orders' folder, the process's name, and by how many seconds its clock is off."""
MACHINES = "FAULTS_MACHINES"
"""Another: where the folders are that workers take for their machines' own; none: they have one machine."""
PACE = "pace"
"""A file in the orders' folder: seconds that an image takes beside what its renderer takes; none: nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a process does when it meets a failpoint."""

    at: str
    """A failpoint, or one of `armed_app`'s own."""
    do: Literal["kill", "freeze", "raise", "sleep"]
    name: str = "*"
    """The process that is meant; any of them for *, but one alone."""
    matching: str = "*"
    """Patterns for the path that the failpoint is about, a | between them."""
    nth: int = 1
    """Counted in each process from when it read the order."""
    error: int | str = 0
    """To raise: an errno, or the name of an exception that `armed_app` knows."""
    pause: float = 0.0
    """To sleep: seconds."""
    lasting: float = 0.0
    """For how many seconds from the first time on every meeting counts; 0: once."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """How an order was met."""

    at: float
    """On the system's monotonic clock."""
    pid: int
    path: Path


class OrderBook:
    """The test's end."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._numbers = itertools.count(1)

    def give(self, order: Order) -> Path:
        """Puts an order out; returns the file that is there once it was met."""
        number = next(self._numbers)
        temporary = self.folder / f"{number}.tmp"
        temporary.write_text(json.dumps(asdict(order)))
        temporary.rename(self.folder / f"{number}.json")
        return self.folder / f"{number}.met"

    def meeting(self, met: Path) -> Meeting | None:
        """How the order was met; None as long as it was not."""
        text = met.read_text() if met.exists() else ""
        return Meeting(**json.loads(text) | {"path": Path(json.loads(text)["path"])}) if text else None

    def withdraw(self, met: Path) -> None:
        """Takes an order back; what was met stays met."""
        met.with_suffix(".json").unlink(missing_ok=True)


class Armed:
    """The process's end: a hook for `jobs.failpoints.arm`."""

    def __init__(self, folder: Path, name: str, errors: Callable[[str], Exception]) -> None:
        """errors: makes an exception of its name."""
        self._folder, self._name, self._errors = folder, name, errors
        self._read_at = 0
        self._orders: dict[Path, Order] = {}
        self._meetings: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __call__(self, at: str, path: Path | None = None) -> None:
        """Carries out what is ordered for this place; raises what is ordered to be raised."""
        for order in self._due(at, "" if path is None else str(path)):
            if order.do == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif order.do == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(0.2)  # another thread may take the signal, and this one go on for a moment
            elif order.do == "sleep":
                time.sleep(order.pause)
            elif isinstance(order.error, int):
                raise OSError(order.error, os.strerror(order.error), None if path is None else str(path))
            else:
                raise self._errors(order.error)

    def _due(self, at: str, path: str) -> list[Order]:
        with self._lock:
            self._read()
            return [order for file, order in self._orders.items() if self._is_due(file, order, at, path)]

    def _read(self) -> None:
        # The folder's time alone: a failpoint is passed ten times an image.
        changed = self._folder.stat().st_mtime_ns
        if changed == self._read_at:
            return
        # File systems tell time in ticks: within one, a change may not show.
        fresh = time.clock_gettime_ns(time.CLOCK_REALTIME) - changed < 50_000_000
        self._read_at = 0 if fresh else changed
        orders: dict[Path, Order] = {}
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # withdrawn
                orders[file] = Order(**json.loads(file.read_text()))
        self._orders = {file: order for file, order in orders.items() if fnmatch(self._name, order.name)}

    def _is_due(self, file: Path, order: Order, at: str, path: str) -> bool:
        if order.at != at or not any(fnmatch(path, pattern) for pattern in order.matching.split("|")):
            return False
        met = file.with_suffix(".met")
        if not met.exists():
            self._meetings[file] = self._meetings.get(file, 0) + 1
            if self._meetings[file] < order.nth:
                return False
            try:
                with met.open("x") as first:
                    first.write(json.dumps({"at": time.monotonic(), "pid": os.getpid(), "path": path}))
                return True
            except FileExistsError:
                pass
        text = met.read_text()
        return bool(text) and time.monotonic() < json.loads(text)["at"] + order.lasting
