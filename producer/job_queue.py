"""The queue that a producer works with: a ledger, and workers that can be woken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jobs.connection import redis_url
from jobs.ledger.eviction import refuse_eviction
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from producer.reporter import QUIET, Reporter


@dataclass(frozen=True, slots=True)
class JobQueue:
    """The ledger that holds the jobs, and the wake-ups that make workers look there."""

    ledger: Ledger
    wake: Callable[[int], None]
    """Sends so many wake-ups; each lets one free task slot look into the ledger. Raises LedgerError."""
    allow_eviction: bool = False
    """Whether the Redis may be one that drops keys when it is full."""
    lease: float = 30.0
    """Seconds that workers lease a shard for, as far as this process knows."""
    lock: str = ""
    """The lock that is held for as long as the Redis lives, where it is a command's own: `lock_name`."""

    @classmethod
    def at(cls, url: str, settings: Settings | None = None, *, lock: str = "") -> JobQueue:
        """The queue in the Redis at `url`. Connects lazily."""
        ledger, wake = Ledger(url), _WakeUps(url).send
        if settings is None:
            return cls(ledger, wake, lock=lock)
        return cls(ledger, wake, settings.allow_eviction, settings.lease, lock)

    def check(self) -> None:
        """Returns if Redis answers, has room and keeps what it is given; raises LedgerError otherwise."""
        self.ledger.ping()
        refuse_eviction(self.ledger.client, self.allow_eviction)

    def wake_for(self, shards: int) -> None:
        """Sends a wake-up for each of so many shards, but at most about two for each task slot there is.

        Raises LedgerError.
        """
        said = [facts.get("slots", "1") for facts in self.ledger.workers().values()]
        slots = sum(int(slots) if slots.isdecimal() else 1 for slots in said)
        self.wake(min(shards, max(2, 2 * slots)))


def connect(settings: Settings, reporter: Reporter = QUIET) -> JobQueue:
    """The queue that the settings name, else that of the newest live `imagemill run`.

    Raises SettingsError for a URL that is not safe to use, LedgerError when there is nothing to connect to.
    """
    url = redis_url(settings, reporter.line)
    return JobQueue.at(url, settings)


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
