"""The calls that change a job's state in Redis: what is to be rendered, by which worker, and what is done.

The ledger is the truth about work. Every change of more than one key is one Lua script
(`jobs.ledger.scripts`), fenced by the job's incarnation and by the attempt that a claim gave; time is Redis'
own. The keys are listed in `jobs.ledger.redis_keys`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, cast

import redis.exceptions

from jobs.errors import JobError, LeaseLost, OtherHardware, Overtaken
from jobs.ledger import redis_keys
from jobs.ledger.job import (
    Addition,
    Claim,
    JobSpec,
    LeaseState,
    Outlook,
    Recovery,
    SlotsKey,
    WorkerState,
)
from jobs.ledger.job_reading import text_of
from jobs.ledger.redis_errors import as_ledger_errors
from jobs.ledger.scripts import Marks, NewJob, Renewal
from jobs.ledger.speeds import work_with
from jobs.ledger.steering import Steering

STAGED = 600
"""Seconds until staged shards expire, counted again from each that is added."""
REFUSAL = 300
"""Seconds that a worker's refusal of a job holds: a brief network failure must not stop a job for good."""
RATE_TTL = 30 * 86400
"""Seconds that speeds are kept after the last shard."""
ENOUGH = 64
"""Claims that `waiting` counts: as many as one worker has task threads, or more."""


_WORD: Final = re.compile(rb"[0-9a-f]{16}")


class Ledger(Steering):
    """The calls of producers and workers that change the ledger.

    `Steering` has those of people, `LedgerView` those that only read it.
    """

    def ping(self) -> None:
        """Returns if Redis answers, lets us write and has room; raises LedgerError otherwise."""
        with as_ledger_errors():
            self.client.lpushx(redis_keys.NOTHING, "")

    def word(self) -> str:
        """The random word that tells the data of this Redis from that of any other; kept from its first use.

        What is no such word is replaced. Raises LedgerError.
        """
        with as_ledger_errors():
            while (held := self._held_word()) is None:
                self.client.set(redis_keys.LEDGER, secrets.token_hex(8), nx=True)
        return held

    def _held_word(self) -> str | None:
        try:
            held = self.client.get(redis_keys.LEDGER)
        except redis.exceptions.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            held = b""
        if held is None:
            return None
        if _WORD.fullmatch(held) is None:
            self.client.delete(redis_keys.LEDGER)
            return None
        return cast(bytes, held).decode()

    # Submitting.

    def create(self, spec: JobSpec, digest: str, least_number: int) -> tuple[str, bool]:
        """Creates a job, or finds the unfinished one of the same output and digest.

        Returns (job_id, created). Raises JobError if another job owns the output.
        """
        answer, raw_id = self._scripts.create(
            new=NewJob.of(spec, digest), incarnation=secrets.token_hex(8), least_number=least_number
        )
        job_id = text_of(raw_id)
        if answer == b"taken":
            raise JobError(
                f"{spec.output}: {job_id} is writing there, from another manifest: "
                f"wait for it, or `imagemill cancel {job_id}`, or name another output"
            )
        if answer == b"ending":
            raise JobError(
                f"{spec.output}: {job_id}, of this very manifest, is ending there: wait for it "
                f"(`imagemill watch {job_id}`) and submit again; if no worker ends it, `imagemill cancel "
                f"{job_id}` does"
            )
        return job_id, answer == b"created"

    def add(self, job_id: str, incarnation: str, addition: Addition) -> None:
        """Stores the next shards of a job that is being submitted.

        Raises JobError if the job has ended, Overtaken if another process submits it too.
        """
        answer = text_of(self._scripts.add(job_id=job_id, incarnation=incarnation, addition=addition))
        if answer != "added":
            why = {
                "gone": "Redis no longer knows it (was it wiped?): submit again",
                "ending": "it was cancelled or stopped",
                "closed": "another submit sealed it",
                "moved": "another submit of the same manifest is adding to it",
            }[answer]
            raise (Overtaken if answer in {"closed", "moved"} else JobError)(f"{job_id}: {why}")

    def stage(self, word: str, shards: Sequence[tuple[int, bytes]]) -> None:
        """Stores shards (number, blob) under a random word for `recover` or `retry`; they expire if neither
        takes them."""
        with as_ledger_errors():
            pipe = self.client.pipeline()
            pipe.hset(redis_keys.job(word, "shards"), mapping=dict(shards))
            pipe.expire(redis_keys.job(word, "shards"), STAGED)
            pipe.execute()

    def recover(self, job_id: str, spec: JobSpec, digest: str, recovery: Recovery) -> None:
        """Puts back a job that Redis lost, sealed, as its next run, in one step.

        Raises JobError if Redis holds the job, another owns the output, or the staged shards have expired.
        """
        answer = text_of(self._scripts.recover(job_id=job_id, new=NewJob.of(spec, digest), recovery=recovery))
        if answer != "recovered":
            why = {
                "known": f"this Redis holds it: `imagemill status {job_id}` shows it",
                "expired": "its stored shards have expired: run the same command again",
            }
            raise JobError(f"{job_id}: {why.get(answer, f'its output is {answer}')}")

    # Rendering.

    def claim(self, worker: str, state: WorkerState, *, lease: float) -> Claim | None:
        """Leases the next shard, or the finishing of a job, for `lease` seconds.

        None if there is nothing for this worker now.
        """
        answer = self._scripts.claim(
            worker=worker, token=secrets.token_hex(4), lease_ms=int(lease * 1000), state=state
        )
        if not answer:
            return None
        kind, job_id, incarnation, shard, attempt = map(text_of, answer[:5])
        suspects = answer[6].decode()
        return Claim(
            cast(Literal["shard", "finish"], kind),
            job_id,
            incarnation,
            shard,
            attempt,
            answer[5],
            suspects=frozenset(() if suspects == "*" else json.loads(suspects)),
            all_suspect=suspects == "*",
            condemned=frozenset(json.loads(answer[7])),
        )

    def renew(self, claims: Mapping[Claim, Sequence[int]], lease: float) -> list[LeaseState]:
        """Renews leases; returns the state of each.

        `claims`: claim -> the images, by index in the job, that its worker has in its slots or has not
        written yet.
        """
        if not claims:
            return []
        renewals = [Renewal(claim.fence, slots) for claim, slots in claims.items()]
        states = self._scripts.renew(lease_ms=int(lease * 1000), renewals=renewals)
        return [cast(LeaseState, state.decode()) for state in states]

    def begin_alone(self, claim: Claim, index: int) -> None:
        """Notes that an image has its worker's slots to itself: it is to blame if the lease runs out now.

        Raises LeaseLost if another attempt holds the shard.
        """
        _unless_lost(claim, self._scripts.alone(fence=claim.fence, image=index))

    def record(
        self,
        claim: Claim,
        done: Sequence[int],
        failed: Mapping[int, Mapping[str, Any]],
        flagged: Collection[int] = (),
    ) -> int:
        """Records images while their shard is being rendered; returns how many were not done before.

        All are indices in the job; `flagged` are those of `done` that are kept but doubted.
        Raises LeaseLost if another attempt holds the shard.
        """
        marks = Marks.of(done, flagged, failed)
        return _unless_lost(claim, self._scripts.record(fence=claim.fence, marks=marks))

    def complete(
        self,
        claim: Claim,
        done: Sequence[int],
        failed: Mapping[int, Mapping[str, Any]],
        flagged: Collection[int] = (),
    ) -> int:
        """Ends a shard that is committed on disk. Takes all its images again; otherwise as `record`."""
        marks = Marks.of(done, flagged, failed)
        return _unless_lost(claim, self._scripts.complete(fence=claim.fence, marks=marks))

    def release(self, claim: Claim) -> None:
        """Gives a claim back unfinished; changes nothing if another attempt has it."""
        self._scripts.release(fence=claim.fence)

    def refuse(self, claim: Claim, worker: str, reason: str) -> None:
        """Gives a claim back and notes why this worker takes no shard of the job for `REFUSAL` seconds."""
        self._scripts.refuse(fence=claim.fence, worker=worker, reason=reason, refusal_ms=REFUSAL * 1000)

    def set_aside(self, claim: Claim, reason: str) -> None:
        """Takes a shard that cannot be read out of its job, which ends without these images."""
        self._scripts.set_aside(fence=claim.fence, reason=reason)

    def settle_slots(
        self, claim: Claim, size: SlotsKey, *, slots: int = 0, measured: bool = True, mixed: bool = False
    ) -> int:
        """The number of slots for the job's pictures of this kind; the first answer holds for all workers.

        `slots` is a proposal; 0 only looks, and returns 0 if no worker has measured for this job or another.
        A proposal that was not `measured`, but configured, is not remembered for other jobs. Raises
        OtherHardware if the job began on another kind of device, unless `mixed` allows it.
        """
        answer = self._scripts.settle_slots(
            fence=claim.fence,
            kind=size.kind,
            size=size.of_picture,
            slots=slots,
            mixed=mixed,
            remembered=size.remembered if measured else "",
        )
        if isinstance(answer, bytes):
            raise OtherHardware(
                f"{claim.job_id} began on {text_of(answer)}, this worker is {size.kind}: their pictures "
                "differ in their bytes. Start it with --mixed-hardware if that does not matter"
            )
        return _unless_lost(claim, answer)

    def cap_slots(self, claim: Claim, size: SlotsKey, slots: int) -> None:
        """Lowers the number of slots because the device has no memory for more; holds for this job alone."""
        _unless_lost(
            claim,
            self._scripts.cap_slots(fence=claim.fence, kind=size.kind, size=size.of_picture, slots=slots),
        )

    def add_work(self, size: SlotsKey, row_evaluations: int, seconds: float) -> None:
        """Adds to a device's measured speed, in which earlier work counts for at most `RATE_WINDOW`.

        If two workers add at once, one of the two may be lost: the next shard adds again.
        """
        with as_ledger_errors():
            known = self.client.hget(redis_keys.RATES, size.remembered)
            pipe = self.client.pipeline()
            pipe.hset(redis_keys.RATES, size.remembered, work_with(known, row_evaluations, seconds))
            pipe.expire(redis_keys.RATES, RATE_TTL)
            pipe.execute()

    def finish(self, claim: Claim, cut: int = 0) -> None:
        """Ends the job, with one finish event. `cut`: its images whose prompt was cut.

        Raises LeaseLost if another attempt finishes it.
        """
        if self._scripts.finish(fence=claim.fence, cut=cut) < 0:
            raise LeaseLost(f"{claim.job_id}: another worker is finishing it")

    def reap(self) -> int:
        """Puts back every shard whose lease ran out; returns how many."""
        return self._scripts.reap()

    def waiting(self, worker: str, models: Sequence[str], *, enough: int = ENOUGH) -> int:
        """How many claims this worker would find now; counts no further than `enough`."""
        return self._scripts.waiting(worker=worker, models=models, enough=enough)

    def outlook(self, workers: Sequence[str], models: Sequence[str]) -> Outlook:
        """What may still come to these workers, now or when the leases of others run out.

        An empty `models` means any.
        """
        left, *counts = self._scripts.outlook(workers=workers, models=models)
        return Outlook(bool(left), *counts)

    def queued(self) -> int:
        """How many wake-ups in Celery's queue no worker has taken yet."""
        with as_ledger_errors():
            return cast(int, self.client.llen(redis_keys.QUEUE))

    # Workers.

    def heartbeat(self, worker: str, facts: Mapping[str, str | int | float]) -> None:
        """Notes that a worker is alive, and facts about it; both expire after `redis_keys.WORKER_TTL`."""
        self._scripts.heartbeat(worker=worker, facts={name: str(value) for name, value in facts.items()})

    def forget_worker(self, worker: str) -> None:
        """Removes a worker that ended cleanly from the list."""
        with as_ledger_errors():
            self.client.zrem(redis_keys.WORKERS, worker)
            self.client.delete(redis_keys.worker(worker))

    def forget_refusals(self, worker: str) -> None:
        """Removes a worker's refusals: after a restart it may hold another model."""
        with as_ledger_errors():
            pipe = self.client.pipeline(transaction=False)
            for job_id in self.client.zrange(redis_keys.ACTIVE, 0, -1):
                pipe.hdel(redis_keys.job(text_of(job_id), "refusals"), worker)
            pipe.execute()


def _unless_lost(claim: Claim, answer: int) -> int:
    """A fenced script's answer. Raises LeaseLost if another attempt holds the lease."""
    if answer < 0:
        raise LeaseLost(f"{claim.job_id}: another attempt holds shard {claim.shard} now")
    return answer
