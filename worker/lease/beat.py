"""A file that stays young while this process's heartbeat goes round, for health checks."""

from __future__ import annotations

import logging
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
"""Seconds from one touch to the next: a health check looks for a file that is younger than two minutes."""
_LEFT_BEHIND = 86400.0
"""Seconds after which a file is one that a killed process left behind."""


class Beat:
    """The file `beats/WORKER` in the runtime folder: touched by `touch`, removed by `end`.

    Its age says whether the process lives, however busy it is, and whether or not Redis answers: a probe that
    restarts workers must not do so because Redis is away.
    """

    def __init__(self, settings: Settings, worker: str) -> None:
        """Makes nothing yet. `worker` is the process's name: gpu0@host."""
        self._settings, self._worker = settings, worker
        self._file: Path | None = None
        self._touched = 0.0
        self._told = False

    def touch(self) -> None:
        """Makes the file young, at most every `EVERY` seconds. What cannot be written is told once."""
        now = time.monotonic()
        if self._file is not None and now - self._touched < EVERY:
            return
        try:
            # Where old folders are cleared away, its own may be gone.
            if self._file is None or not self._file.exists():
                self._file = self._begin()
            self._file.touch()
        except (OSError, SettingsError) as error:
            if not self._told:
                _log.warning("no file for health checks is kept (%s)", error)
            self._told = True
            return
        self._touched, self._told = now, False

    def end(self) -> None:
        """Removes the file: this process ends in good order."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _begin(self) -> Path:
        """The file; its folder is made, and cleared of files that nobody touches any more."""
        folder = runtime_folder(self._settings) / FOLDER
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > _LEFT_BEHIND:
                    file.unlink()
        return folder / self._worker
