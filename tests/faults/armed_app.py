"""`celery -A tests.faults.armed_app worker`: the product's worker process, with failpoints that are armed.

Beside the failpoints three places are made here: `loading`, before a model is loaded, `rendering`, before
images enter the slots, and `renewing`, before the heartbeat renews its leases. Every image that enters the
slots is noted in `NAME.begun`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults.arming import CLOCK, FOLDER, MACHINES, NAME, PACE, Armed

_OFF = float(os.environ.get(CLOCK, "0"))
_time = time.time
# Before anything else asks for the time.
time.time = lambda: _time() + _OFF

import worker.lease.old_spools  # noqa: E402
import worker.renderers.load_renderer  # noqa: E402
from jobs.failpoints import arm  # noqa: E402
from jobs.ledger.ledger import Ledger  # noqa: E402
from jobs.settings import Settings  # noqa: E402
from worker.engine.renderer import (  # noqa: E402
    BrokenDevice,
    Bucket,
    OutOfMemory,
    Pipeline,
    Source,
    Stopped,
)
from worker.renderers.loading import Loading  # noqa: E402

_ERRORS: dict[str, Callable[[str], Exception]] = {
    "OutOfMemory": OutOfMemory,
    "BrokenDevice": BrokenDevice,
    "RuntimeError": RuntimeError,
}
_folder = Path(os.environ[FOLDER])
_armed = Armed(_folder, os.environ[NAME], lambda name: _ERRORS[name]("as ordered"))
_begun = os.open(_folder.parent / f"{os.environ[NAME]}.begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


class Noting:
    """A renderer that notes what enters its slots, and goes at the pace that the test sets."""

    def __init__(self, renderer: Any, beat: Callable[[], None]) -> None:
        """`beat` tells that it moves."""
        self._renderer, self._beat = renderer, beat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._renderer, name)

    def render(self, bucket: Bucket, source: Source[Any], stop: Callable[[], bool]) -> Iterator[Any]:
        return self._renderer.render(bucket, _Noted(source, stop, self._beat), stop)

    def render_alone(self, request: Any, *rest: Any) -> Any:
        os.write(_begun, f"{request.image_id}\n".encode())
        return self._renderer.render_alone(request, *rest)


class _Noted:
    def __init__(self, source: Source[Any], stop: Callable[[], bool], beat: Callable[[], None]) -> None:
        self._source, self._stop, self._beat = source, stop, beat
        self.upcoming = source.upcoming

    def take(self, free_slots: int) -> Sequence[Any]:
        taken = self._source.take(free_slots)
        if taken:
            # One write that a kill cannot halve.
            os.write(_begun, "".join(f"{one.request.image_id}\n" for one in taken).encode())
            _armed("rendering")
            self._rest(len(taken))
        return taken

    def _rest(self, images: int) -> None:
        try:
            seconds = float((_folder / PACE).read_text() or 0)
        except FileNotFoundError:
            return
        until = time.monotonic() + seconds * images
        while (left := until - time.monotonic()) > 0:
            if self._stop():
                raise Stopped
            self._beat()  # slow, and not stuck
            time.sleep(min(left, 0.02))


_load_renderer, _renew = worker.renderers.load_renderer.load_renderer, Ledger.renew


def _renewing(self: Ledger, *arguments: Any) -> Any:
    _armed("renewing")
    return _renew(self, *arguments)


def _loading(pipeline: Pipeline, settings: Settings, loading: Loading) -> Noting:
    _armed("loading")
    return Noting(_load_renderer(pipeline, settings, loading), loading.advance)


if MACHINES in os.environ:  # a cache of its own: nobody else's spools are in it
    worker.lease.old_spools.KEPT = 0.0  # type: ignore[misc]
worker.renderers.load_renderer.load_renderer = _loading  # type: ignore[assignment]
Ledger.renew = _renewing  # type: ignore[method-assign]
arm(_armed)

from worker.celery_app import app  # noqa: E402

__all__ = ["app"]
