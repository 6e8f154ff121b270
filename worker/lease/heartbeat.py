"""The thread that renews leases, reaps the dead ones of others, sends the heartbeat and tops up wake-ups."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from jobs.errors import LedgerError
from jobs.ledger.job import Claim, LeaseState
from jobs.ledger.ledger import Ledger
from worker.lease.consumer_watch import ConsumerWatch
from worker.lease.repeated import Repeated
from worker.lease.twin import Twin

log = logging.getLogger(__name__)
ROUND = 1.0
"""Seconds from one round of all duties to the next, or a third of the lease if that is less."""
_LAST_CALL = 2.0
"""Seconds for the call to Redis that the thread may be in when it must end."""
_BETWEEN = 0.1
"""Seconds between two renewals, however often images enter the slots."""


class Heartbeat:
    """Renews this process's claims, every second or third of a lease, and keeps the ledger in order.

    `facts` gives the facts that the heartbeat carries. `top_up` is called with the number of waiting claims
    whenever no wake-up is left in the queue: a lost message costs a second and never a job.
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
        consumer_stopped: Callable[[], None] = lambda: None,
        went_round: Callable[[], None] = lambda: None,
    ) -> None:
        """`consumer_stopped` is called when no wake-up comes here though the queue has some, `went_round`
        after each round, whether or not Redis answered.
        """
        self._ledger, self._worker, self._lease, self._models = ledger, worker, lease, models
        self._facts, self._top_up, self._consumer_stopped = facts, top_up, consumer_stopped
        self._went_round = went_round
        self._consumer = ConsumerWatch()
        self._states: dict[Claim, LeaseState] = {}
        self._listings: dict[Claim, Callable[[], Sequence[int]]] = {}
        self._lock = threading.Lock()
        self._topping_up = threading.Lock()
        self._ended = threading.Event()
        self._entered = threading.Event()
        self._repeated = Repeated()
        self._twin, self._told = Twin(), False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and removes the worker from the list."""
        self._ended.set()
        self._entered.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_CALL)
        try:
            self._ledger.forget_worker(self._worker)
        except LedgerError as error:
            log.info("%s: this worker's heartbeat ends by itself", error)

    def hold(self, claim: Claim) -> None:
        """Renews a claim from now on."""
        with self._lock:
            self._states[claim] = "held"

    def drop(self, claim: Claim) -> None:
        """Stops renewing a claim."""
        with self._lock:
            del self._states[claim]
            self._listings.pop(claim, None)

    def list_in_flight(self, claim: Claim, listing: Callable[[], Sequence[int]]) -> None:
        """Makes each renewal of a claim report which images the death of this process would cost."""
        with self._lock:
            self._listings[claim] = listing

    def woken(self) -> None:
        """A wake-up has come: Celery's consumer lives."""
        self._consumer.woken()

    def images_entered(self) -> None:
        """Renews soon, since other images are in flight now."""
        self._entered.set()

    def state(self, claim: Claim) -> LeaseState:
        """What the last renewal said of a claim; lost when this process holds it no longer."""
        with self._lock:
            return self._states.get(claim, "lost")

    def renew(self) -> None:
        """Renews all claims now. Raises LedgerUnavailable."""
        with self._lock:
            listings = {claim: self._listings.get(claim) for claim in self._states}
        in_flight = {claim: [] if listing is None else listing() for claim, listing in listings.items()}
        for claim, state in zip(in_flight, self._ledger.renew(in_flight, self._lease), strict=True):
            with self._lock:
                if claim in self._states:
                    self._states[claim] = state

    def _run(self) -> None:
        while not self._ended.is_set():
            round_ends = time.monotonic() + min(ROUND, self._lease / 3)
            self._try("leases", self._keep_house)
            self._went_round()
            while (left := round_ends - time.monotonic()) > 0 and self._entered.wait(left):
                if self._ended.is_set():
                    return
                self._entered.clear()
                self._try("renewals", self.renew)
                self._ended.wait(_BETWEEN)

    def _try(self, name: str, duty: Callable[[], None]) -> None:
        try:
            duty()
            self._repeated.over(name)
        except LedgerError as error:
            if (count := self._repeated.to_say(name, error)) is not None:
                log.warning("%s; trying again%s", error, count)
        except Exception as error:
            # A heartbeat that dies would let every lease run out: log the error and try again.
            if (count := self._repeated.to_say(name, error)) is not None:
                log.exception("the heartbeat's %s failed; trying again%s", name, count)

    def _keep_house(self) -> None:
        self.renew()
        # Before it reaps, which damaged keys might make fail: this worker is alive all the same.
        self._tell_facts()
        self._ledger.reap()
        queued = self._ledger.queued()
        untaken = (
            queued > 0 and not self._states and self._ledger.waiting(self._worker, self._models, enough=1)
        )
        if self._consumer.stopped(bool(untaken)):
            self._consumer_stopped()
        if queued == 0 and (waiting := self._ledger.waiting(self._worker, self._models)):
            # Celery has connections of its own: one that hangs must not hold the renewals up.
            threading.Thread(target=self._send, args=(waiting,), name="top-up", daemon=True).start()

    def _tell_facts(self) -> None:
        facts = self._facts()
        self._twin.look(self._ledger.worker(self._worker), facts)
        trouble = self._twin.trouble
        if trouble and not self._told:
            log.warning("%s: %s", self._worker, trouble)
        self._told = bool(trouble)
        self._ledger.heartbeat(self._worker, {**facts, "twin": trouble})

    def _send(self, waiting: int) -> None:
        if self._topping_up.acquire(blocking=False):
            try:
                self._try("wake-ups", lambda: self._top_up(waiting))
            finally:
                self._topping_up.release()
