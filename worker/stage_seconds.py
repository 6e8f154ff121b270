"""How long a worker process has worked at each stage of its pictures: sums that only grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, get_args

Stage = Literal["load", "sample", "decode", "encode", "write"]
"""load: models, until they render. sample: texts and forwards. decode: latents to pixels. encode: pixels to
the bytes of a file. write: files to disk or bucket, and shards into the output."""
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


class StageSeconds:
    """Seconds by stage. Each thread has sums of its own, so that adding takes no lock."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[dict[Stage, float]] = []
        self._lock = threading.Lock()

    def add(self, stage: Stage, seconds: float) -> None:
        """Adds what a piece of work took."""
        self._sums()[stage] += seconds

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Adds how long the block takes, also where it raises."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - began)

    def of_this_thread(self, stage: Stage) -> float:
        """Seconds that the calling thread has added."""
        return self._sums()[stage]

    def totals(self) -> Mapping[Stage, float]:
        """Seconds of all threads, of those that have ended, too."""
        with self._lock:
            sums = [*self._all]
        return {stage: sum(own[stage] for own in sums) for stage in STAGES}

    def _sums(self) -> dict[Stage, float]:
        try:
            return self._own.sums  # type: ignore[no-any-return]
        except AttributeError:
            sums: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
            self._own.sums = sums
            with self._lock:
                self._all.append(sums)
            return sums


SPENT: Final = StageSeconds()
"""Those of this process, which has one engine."""
