"""A file that stays young while a process lives, for health checks."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from jobs.connection import runtime_folder
from jobs.errors import SettingsError
from jobs.settings import Settings

_log = logging.getLogger(__name__)
FOLDER = "beats"
"""The folder of these files, in the folder of connection and lock files."""
EVERY = 5.0
"""Seconds from one touch to the next."""
OLD = 120.0
"""Seconds without a touch after which a health check takes a process for dead."""
_LEFT_BEHIND = 86400.0
"""Seconds after which a file is one that a killed process of any host left behind."""


class Beat:
    """The file `beats/NAME` in the runtime folder: young while its process lives, gone once it has ended.

    Its age says whether the process lives, however busy it is, and whether or not Redis answers: a probe that
    restarts workers must not do so because Redis is away.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        """Makes nothing yet. `name` is that of a worker process, gpu0@host, or of what else a host does."""
        self._settings, self._name = settings, name
        self._file: Path | None = None
        self._touched = 0.0
        self._told = False
        self._over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Begins."""
        self.begin()

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self.end()

    def begin(self) -> None:
        """Keeps the file young, from a thread, until the first `touch` or `end`: for what waits for Redis."""
        with self._lock:
            self._keep_young()

        def keep_young() -> None:
            while not self._over.wait(EVERY):
                with self._lock:
                    if not self._over.is_set():
                        self._keep_young()

        threading.Thread(target=keep_young, name="beat", daemon=True).start()

    def touch(self) -> None:
        """Makes the file young, at most every `EVERY` seconds. What cannot be written is told once."""
        self._over.set()
        with self._lock:
            self._keep_young()

    def end(self) -> None:
        """Removes the file: the process has ended, or does now. Another process may have made it."""
        self._over.set()
        with self._lock, suppress(OSError, SettingsError):
            (runtime_folder(self._settings) / FOLDER / self._name).unlink(missing_ok=True)

    def _keep_young(self) -> None:
        now = time.monotonic()
        if self._file is not None and now - self._touched < EVERY:
            return
        try:
            # Where old folders are cleared away, its own may be gone.
            if self._file is None or not self._file.exists():
                self._file = self._make_room()
            self._file.touch()
        except (OSError, SettingsError) as error:
            if not self._told:
                _log.warning("no file for health checks is kept (%s)", error)
            self._told = True
            return
        self._touched, self._told = now, False

    def _make_room(self) -> Path:
        """The file; its folder is made, and cleared of files that nobody touches any more."""
        folder = runtime_folder(self._settings) / FOLDER
        folder.mkdir(exist_ok=True)
        _sweep(folder, "*", _LEFT_BEHIND)
        return folder / self._name


def sweep(settings: Settings, host: str) -> None:
    """Removes the old files of a host on which no worker runs yet: those of processes that were killed."""
    with suppress(OSError, SettingsError):
        _sweep(runtime_folder(settings) / FOLDER, f"*@{host}", OLD)


def _sweep(folder: Path, names: str, age: float) -> None:
    for file in folder.glob(names):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > age:
                file.unlink()
