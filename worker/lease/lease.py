"""Work under a lease: however it ends, the ledger learns it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from jobs.errors import BrokenShard, ImagemillError, JobError, LeaseLost, LedgerError, LedgerUnavailable
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from worker.engine.renderer import Stopped
from worker.lease.heartbeat import Heartbeat
from worker.lease.repeated import Repeated
from worker.lease.writers import InFolder, Writing

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class GiveBack(Exception):
    """The claim goes back to the ledger unfinished; `ended` is what the report says."""

    def __init__(self, ended: str) -> None:
        super().__init__(ended)
        self.ended = ended


class Work(Protocol):
    """A shard to render, or a job to finish."""

    def run(self) -> str:
        """Do it and return how it ended, in a word or two; every other end is raised."""

    def report(self, ended: str) -> dict[str, Any]:
        """What was done, as the task's result shows it."""


class Lease:
    """A claim that this process holds, and what to ask of it while working."""

    def __init__(
        self,
        claim: Claim,
        *,
        ledger: Ledger,
        heartbeat: Heartbeat,
        worker: str,
        stop: threading.Event,
        held_up: Callable[[], bool] = lambda: False,
        writing: Writing | None = None,
    ) -> None:
        """`held_up`: whether the engine is stuck in something else, so that others do the work sooner.

        `writing`: what to ask of who writes the output; without it, nothing.
        """
        self.claim, self.ledger = claim, ledger
        self.writing = InFolder() if writing is None else writing
        self._heartbeat, self._worker, self._stop, self._held_up = heartbeat, worker, stop, held_up

    def check(self) -> None:
        """Raises LeaseLost when another attempt holds the claim, GiveBack when the work should end early,
        OutputError when another ledger has taken the output over."""
        state = self._heartbeat.state(self.claim)
        if state == "lost":
            what = "its finishing" if self.claim.kind == "finish" else f"shard {self.claim.shard}"
            raise LeaseLost(f"{self.claim.job_id}: another attempt holds {what} now")
        if state == "ending":
            raise GiveBack("cancelled")
        if self._stop.is_set() or self._held_up():
            raise GiveBack("released")
        self.writing.check()

    def begin(self) -> None:
        """Makes sure that the output may be written. Raises OutputError, OSError, and as `patiently`."""
        self.patiently(self.writing.begin)

    def confirm(self) -> None:
        """The same, by what ledger and bucket say now: this process may have been paused since it last asked.

        Raises OSError, too, where the bucket does not say.
        """
        self.patiently(self._heartbeat.renew)
        self.check()
        self.patiently(self.writing.confirm)

    def list_in_flight(self, listing: Callable[[], Sequence[int]]) -> None:
        """From now on each renewal reports which images of the job the death of this process would cost."""
        self._heartbeat.list_in_flight(self.claim, listing)

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Repeats a ledger call until Redis answers; raises GiveBack when the worker stops meanwhile."""
        repeated = Repeated()
        while True:
            try:
                return call()
            except LedgerUnavailable as error:
                if (count := repeated.to_say("call", error)) is not None:
                    log.warning("%s; waiting%s", error, count)
                if self._stop.wait(1.0):
                    raise GiveBack("released") from None

    def carry_out(self, work: Work) -> dict[str, Any]:
        """Does the work and reports to the ledger how it ended: done, given back, lost, or refused here."""
        return work.report(self._end(work))

    def _end(self, work: Work) -> str:
        try:
            return work.run()
        except GiveBack as end:
            self._report(lambda: self.ledger.release(self.claim))
            return end.ended
        except Stopped:
            self._report(lambda: self.ledger.release(self.claim))
            return "released"
        except (LeaseLost, JobError, LedgerUnavailable) as error:
            log.warning("%s; leaving it", error)
            return "lost"
        except BrokenShard as error:
            reason = str(error)
            log.error("%s: shard %s is set aside: %s", self.claim.job_id, self.claim.shard, reason)
            self._report(lambda: self.ledger.set_aside(self.claim, reason))
            return "set aside"
        except (ImagemillError, OSError) as error:
            reason = str(error)
            log.error("this worker does not take %s: %s", self.claim.job_id, reason)
        except Exception as error:
            # Without a refusal a defect here would recur at every lease, unseen.
            reason = f"{type(error).__name__}: {error}"
            log.exception("unexpected error; this worker does not take %s", self.claim.job_id)
        self._report(lambda: self.ledger.refuse(self.claim, self._worker, reason))
        return "refused"

    def _report(self, call: Callable[[], None]) -> None:
        try:
            call()
        except LedgerError as error:
            log.warning("%s: the lease runs out", error)
