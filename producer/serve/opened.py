"""A site made of settings: the ledger that they name, and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.connection import redis_url
from jobs.ledger.ledger_view import LedgerView
from jobs.output.output import Output
from jobs.settings import Settings
from producer.serve.doors import Doors
from producer.serve.ledger_watch import LedgerWatch
from producer.serve.outputs import Outputs
from producer.serve.pages import Pages
from producer.serve.site import Site

_TIMEOUT = 5.0
"""Seconds that a page waits for Redis."""


def site_of(settings: Settings, outputs: Sequence[Output], token: str | None = None) -> Site:
    """What `imagemill serve` shows: the ledger that the settings name, or that of the newest `imagemill run`.

    `outputs`: those that are shown besides the jobs' own, which IMAGEMILL_OUTPUT_ROOT confines. Raises
    SettingsError for an address of Redis that is wrong.
    """
    if settings.redis_url is not None:
        redis_url(settings)  # refused at once where it cannot be used
    watch = LedgerWatch(lambda: LedgerView(redis_url(settings), timeout=_TIMEOUT))
    return _site(watch, Outputs(outputs, watch, settings.output_root), token)


def site_at(url: str, output: Output, token: str) -> Site:
    """What `imagemill run` shows: the jobs of its Redis, and its output."""
    watch = LedgerWatch(lambda: LedgerView(url, timeout=_TIMEOUT))
    return _site(watch, Outputs([output], watch), token)


def _site(watch: LedgerWatch, outputs: Outputs, token: str | None) -> Site:
    doors = Doors(token)
    return Site(watch, outputs, Pages(guarded=doors.guarded), doors)
