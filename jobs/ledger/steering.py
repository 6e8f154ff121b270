"""The calls of people that change a job: pause, resume, cancel, retry."""

from __future__ import annotations

from typing import Literal, cast

from jobs.errors import JobError, JobUnreadable
from jobs.ledger.job import Bits, Controlled, Staged
from jobs.ledger.job_reading import text_of, unreadable
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.lua_functions import lua_functions
from jobs.ledger.scripts import Scripts


class Steering(LedgerView):
    """The calls that steer a job that is there, by its scripts."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Connects on the first call. `url`: as `jobs.redis_url`; `timeout`: seconds a call may take."""
        super().__init__(url, timeout=timeout)
        self._scripts: Scripts = lua_functions(Scripts, self.client)

    def control(
        self, job_id: str, action: Literal["pause", "resume", "cancel"], reason: str = ""
    ) -> Controlled:
        """Pauses, resumes or cancels from the next claim on, and puts back what Redis lost of the job.

        Raises JobError if the state forbids it, JobUnreadable if only `cancel` is left.
        """
        readable = action != "cancel" or self._reads(job_id)
        answer = text_of(
            self._scripts.control(job_id=job_id, action=action, reason=reason, readable=readable)
        )
        if answer == "gone":
            raise self._no_such(job_id)
        if answer == "lost":
            raise unreadable(job_id, "its main key is lost or damaged")
        if answer not in ("ok", "ended", "dropped"):
            raise JobError(f"{job_id} is {answer} already: there is nothing to {action}")
        return cast(Controlled, answer)

    def _reads(self, job_id: str) -> bool:
        try:
            return bool(self.status(job_id) and self.spec(job_id))
        except (JobUnreadable, JobError):
            return False

    def retry(self, job_id: str, incarnation: str, run: int, done: Bits, staged: Staged) -> None:
        """Opens a finished job's next run: the staged shards are to be rendered, everything else is `done`.

        Its failures are forgotten. Raises JobError if it is not finished, or is in another run by now.
        """
        answer = text_of(
            self._scripts.retry(
                job_id=job_id, incarnation=incarnation, run=run, done=bytes(done), staged=staged
            )
        )
        if answer != "ok":
            why = {
                "gone": "Redis no longer holds it",
                "moved": "it is not finished, or was sent back already",
                "unnamed": "Redis lost which output it writes to: submit its manifest again instead",
                "expired": "the shards to send back have expired: run the same command again",
            }
            raise JobError(f"{job_id}: {why.get(answer, f'its output is {answer}')}")
