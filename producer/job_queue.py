"""The queue that a producer works with: a ledger, and workers that can be woken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jobs.connection import redis_url
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from producer.reporter import QUIET, Reporter


@dataclass(frozen=True, slots=True)
class JobQueue:
    """The ledger that holds the jobs, and the wake-ups that make workers look there."""

    ledger: Ledger
    wake: Callable[[int], None]
    """Sends so many wake-ups; each lets one free task slot look into the ledger. Raises LedgerError."""

    @classmethod
    def at(cls, url: str) -> JobQueue:
        """The queue in the Redis at `url`. Connects lazily."""
        return cls(Ledger(url), _WakeUps(url).send)

    def wake_for(self, shards: int) -> None:
        """Sends a wake-up for each of so many shards, but at most about two for each task slot there is.

        Raises LedgerError.
        """
        slots = sum(int(facts.get("slots", 1)) for facts in self.ledger.workers().values())
        self.wake(min(shards, max(2, 2 * slots)))


def connect(settings: Settings, reporter: Reporter = QUIET) -> JobQueue:
    """The queue that the settings name, else that of the newest live `imagemill run`.

    Raises SettingsError for a URL that is not safe to use, LedgerError when there is nothing to connect to.
    """
    url = redis_url(settings, reporter.line)
    return JobQueue.at(url)


class _WakeUps:
    """Sends wake-ups through Celery, which is loaded for the first one: `imagemill status` needs none."""

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _app(self) -> object:
        from jobs.ledger.broker import celery_app

        return celery_app(self._url)

    def send(self, count: int) -> None:
        from jobs.ledger.broker import wake

        wake(self._app, count)
