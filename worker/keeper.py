"""The thread that keeps leases: renews them, reaps others' dead ones, beats the heart, tops up wake-ups."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from jobs.errors import LedgerUnavailable
from jobs.job import Claim, LeaseState
from jobs.ledger import Ledger

log = logging.getLogger(__name__)
_LAST_CALL = 2.0
"""Seconds for the call to Redis that the thread may be in when it is told to end."""


class Keeper:
    """Renews what this process has claimed, each second or third of a lease, and keeps the ledger's house.

    `facts` gives the heartbeat's facts; `top_up` is called with the number of claims that wait whenever no
    wake-up is left in the queue, so that a lost message costs a second and never a job.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        *,
        lease: float,
        models: tuple[str, ...],
        facts: Callable[[], Mapping[str, str | int | float]],
        top_up: Callable[[int], None],
    ) -> None:
        self._ledger, self._worker, self._lease, self._models = ledger, worker, lease, models
        self._facts, self._top_up = facts, top_up
        self._states: dict[Claim, LeaseState] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and takes the worker off the list."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_CALL)
        try:
            self._ledger.forget_worker(self._worker)
        except LedgerUnavailable:
            log.info("Redis is away: this worker's heartbeat ends by itself")

    def hold(self, claim: Claim) -> None:
        """Renews a claim from now on."""
        with self._lock:
            self._states[claim] = "held"

    def drop(self, claim: Claim) -> None:
        """Renews a claim no more."""
        with self._lock:
            del self._states[claim]

    def state(self, claim: Claim) -> LeaseState:
        """What the last renewal said of a claim; lost when it is not held here any more."""
        with self._lock:
            return self._states.get(claim, "lost")

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._renew()
                self._ledger.reap()
                self._ledger.heartbeat(self._worker, self._facts())
                if self._ledger.queued() == 0 and (
                    waiting := self._ledger.waiting(self._worker, self._models)
                ):
                    self._top_up(waiting)
                self._away = False
            except LedgerUnavailable as error:
                if not self._away:
                    log.warning("%s; trying on", error)
                self._away = True
            except Exception:
                # A keeper that dies would let every lease run out: say it and try again.
                log.exception("keeping the leases failed; trying on")
            self._ended.wait(min(1.0, self._lease / 3))

    def _renew(self) -> None:
        with self._lock:
            claims = list(self._states)
        for claim, state in zip(claims, self._ledger.renew(claims, self._lease), strict=True):
            with self._lock:
                if claim in self._states:
                    self._states[claim] = state
