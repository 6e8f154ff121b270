"""How far the loading of a model has come, for those who wait for it. Imports no torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(slots=True)
class _Stage:
    doing: str
    model: str
    of_files: int
    of_size: int
    began: float
    files: int = 0
    size: int = 0


class Loading:
    """What is being done to load a model. Threads that load count, and others read `text`."""

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        """Nothing is being loaded yet. `moved` is called at each sign of progress."""
        self._moved = moved
        self._lock = threading.Lock()
        self._stage: _Stage | None = None

    @contextmanager
    def stage(self, doing: str, model: str, *, files: int = 0, size: int = 0) -> Iterator[None]:
        """A part of the loading, such as "downloading", with so many files and bytes; 0: not known."""
        with self._lock:
            outer, self._stage = self._stage, _Stage(doing, model, files, size, time.monotonic())
        self._moved()
        try:
            yield
        finally:
            with self._lock:
                self._stage = outer

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Counts so many files and bytes more as done."""
        self._moved()
        with self._lock:
            if self._stage is not None:
                self._stage.files += files
                self._stage.size += size

    @property
    def text(self) -> str:
        """`downloading org/name: 3 of 12 files, 4.1 of 23.8 GB, 41 s`; empty when nothing is loaded."""
        with self._lock:
            stage = self._stage
            if stage is None:
                return ""
            figures = []
            if stage.of_files:
                figures.append(f"{min(stage.files, stage.of_files)} of {stage.of_files} files")
            if stage.of_size:
                figures.append(_of(min(stage.size, stage.of_size), stage.of_size))
            figures.append(f"{int(time.monotonic() - stage.began)} s")
            return f"{stage.doing} {stage.model}: {', '.join(figures)}"


def _of(done: int, total: int) -> str:
    """`4.1 of 23.8 GB`, or `23.8 GB` as long as nothing is done; the unit is that of the total."""
    unit, size = next((pair for pair in _UNITS if total >= pair[1]), ("bytes", 1))
    digits = 1 if size > 1 else 0
    begin = f"{done / size:.{digits}f} of " if done else ""
    return f"{begin}{total / size:.{digits}f} {unit}"
