"""The job's exact state in Redis, and all that changes it: what is to be rendered, by whom, and what is done.

The ledger is the truth about work. Every change of more than one key is one Lua script
(`jobs.ledger.scripts`), fenced by the job's incarnation and by the attempt that a claim gave; time is Redis'
own. The keys are listed in `jobs.ledger.redis_keys`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from jobs.errors import JobError, LeaseLost, OtherHardware, Overtaken
from jobs.ledger import redis_keys
from jobs.ledger.job import Bits, Claim, JobSpec, LeaseState, Recovery, SlotsKey, Staged
from jobs.ledger.ledger_view import LedgerView
from jobs.ledger.lua_functions import lua_functions
from jobs.ledger.redis_errors import redis_errors_as_ours
from jobs.ledger.scripts import Marks, NewJob, NewShard, Renewal, Scripts, failures_as_json

STAGED = 600
"""Seconds that staged shards wait for the next of them, or to be taken."""
REFUSAL = 300
"""Seconds that a worker's refusal of a job holds: a hiccup of a network must not halt a job for good."""
RATE_WINDOW = 600.0
"""Seconds of rendering: one shard alone may have met a busy machine."""
RATE_TTL = 30 * 86400
"""Seconds after the last shard that speeds are known."""
WORKER_TTL = 60
"""Seconds after its last heartbeat that a worker is still listed."""


class Ledger(LedgerView):
    """What changes the ledger: the calls of producers and workers. Reading it is `LedgerView`'s."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Connects lazily. `url`: redis:// or rediss://; `timeout`: seconds a call may take."""
        super().__init__(url, timeout=timeout)
        self._scripts: Scripts = lua_functions(Scripts, self.client)

    def ping(self) -> None:
        """Returns when Redis answers, takes us and has room; raises what is wrong otherwise."""
        with redis_errors_as_ours():
            self.client.lpushx(redis_keys.NOTHING, "")

    # Submitting.

    def create(self, spec: JobSpec, digest: str, least_number: int) -> tuple[str, bool]:
        """Makes a job, or finds the unfinished one of the same output and digest.

        Returns (job_id, created). Raises JobError when another job owns the output.
        """
        answer, raw_id = self._scripts.create(
            new=NewJob.of(spec, digest), incarnation=secrets.token_hex(8), least_number=least_number
        )
        job_id = raw_id.decode()
        if answer == b"taken":
            raise JobError(
                f"{spec.output}: {job_id} is writing there, from another manifest: "
                f"wait for it, or `imagemill cancel {job_id}`, or name another output"
            )
        if answer == b"ending":
            raise JobError(
                f"{spec.output}: {job_id}, of this very manifest, is ending there: wait for it "
                f"(`imagemill watch {job_id}`) and submit again"
            )
        return job_id, answer == b"created"

    def add(
        self,
        job_id: str,
        incarnation: str,
        cursor: int,
        new_cursor: int,
        shards: Iterable[tuple[int, int, bytes]],
        *,
        held: int = 0,
        seal: bool,
    ) -> None:
        """Stores shards (number, images, blob) and moves the manifest's cursor; `seal`: these were the last.

        `held` of the lines between the cursors are in the output already and in no shard.
        Raises JobError when the job ended meanwhile, Overtaken when somebody else is submitting it too.
        """
        answer = self._scripts.add(
            job_id=job_id,
            incarnation=incarnation,
            cursor=cursor,
            new_cursor=new_cursor,
            held=held,
            seal=seal,
            shards=[NewShard(*shard) for shard in shards],
        ).decode()
        if answer != "added":
            why = {
                "gone": "Redis no longer knows it (was it wiped?): submit again",
                "ending": "it was cancelled or stopped",
                "closed": "another submit sealed it",
                "moved": "another submit of the same manifest is adding to it",
            }[answer]
            raise (Overtaken if answer in {"closed", "moved"} else JobError)(f"{job_id}: {why}")

    def stage(self, word: str, shards: Sequence[tuple[int, bytes]]) -> None:
        """Stores shards (number, blob) under a random word until `recover` or `retry` takes them; else they
        expire."""
        with redis_errors_as_ours():
            pipe = self.client.pipeline()
            pipe.hset(redis_keys.job(word, "shards"), mapping=dict(shards))
            pipe.expire(redis_keys.job(word, "shards"), STAGED)
            pipe.execute()

    def recover(self, job_id: str, spec: JobSpec, digest: str, recovery: Recovery) -> None:
        """Puts back a job that Redis lost, sealed, as its next run; all of it or nothing.

        Raises JobError when Redis holds the job, another owns the output, or what was staged is gone.
        """
        answer = self._scripts.recover(
            job_id=job_id,
            new=NewJob.of(spec, digest),
            staged=recovery.staged,
            total=recovery.total,
            held=recovery.held,
            done=bytes(recovery.done),
            flagged=bytes(recovery.flagged),
            failures=failures_as_json(recovery.failures),
        ).decode()
        if answer != "recovered":
            why = {
                "known": f"this Redis holds it: `imagemill status {job_id}` tells how it stands",
                "expired": "what was stored of it has expired: run the same command again",
            }
            raise JobError(f"{job_id}: {why.get(answer, f'its output is {answer}')}")

    # Rendering.

    def claim(
        self, worker: str, *, lease: float, loaded: str, idle: float, load_time: float, models: Sequence[str]
    ) -> Claim | None:
        """Leases the next shard, or the finishing of a job; None when there is nothing for this worker now.

        Seconds: `lease`, `idle` (since this worker last had work of its loaded pipeline), `load_time`.
        `loaded` is a `JobSpec.pipeline`, "" for none; `models` empty means any.
        """
        answer = self._scripts.claim(
            worker=worker,
            token=secrets.token_hex(4),
            lease_ms=int(lease * 1000),
            loaded=loaded,
            idle_ms=int(idle * 1000),
            load_ms=int(load_time * 1000),
            models=models,
        )
        if not answer:
            return None
        kind, job_id, incarnation, shard, attempt = (part.decode() for part in answer[:5])
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
        """Renews leases; for each: held, lost, or ending (the job was cancelled or stopped).

        With each claim, by index in the job, the images that a death of its worker would cost now.
        """
        if not claims:
            return []
        renewals = [Renewal(claim.fence, slots) for claim, slots in claims.items()]
        states = self._scripts.renew(lease_ms=int(lease * 1000), renewals=renewals)
        return [cast(LeaseState, state.decode()) for state in states]

    def begin_alone(self, claim: Claim, index: int) -> None:
        """Says that an image has its worker's slots to itself: it is charged when the lease runs out now.

        Raises LeaseLost when another attempt holds the shard.
        """
        _unless_lost(claim, self._scripts.alone(fence=claim.fence, image=index))

    def record(
        self,
        claim: Claim,
        done: Sequence[int],
        failed: Mapping[int, Mapping[str, Any]],
        flagged: Collection[int] = (),
    ) -> int:
        """Sets the done bits of `done` and keeps the failures; returns how many bits were new.

        All are indices in the job; `flagged` are those of `done` that are kept but doubted.
        Raises LeaseLost when the attempt no longer holds the shard.
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
        """Ends a shard that is committed on disk; takes all its indices again. As `record` otherwise."""
        marks = Marks.of(done, flagged, failed)
        return _unless_lost(claim, self._scripts.complete(fence=claim.fence, marks=marks))

    def release(self, claim: Claim) -> None:
        """Gives a claim back unfinished; nothing happens when it was lost."""
        self._scripts.release(fence=claim.fence)

    def refuse(self, claim: Claim, worker: str, reason: str) -> None:
        """Gives a claim back and says why this worker takes no shard of the job for `REFUSAL` seconds."""
        self._scripts.refuse(fence=claim.fence, worker=worker, reason=reason, refusal_ms=REFUSAL * 1000)

    def set_aside(self, claim: Claim, reason: str) -> None:
        """Takes a shard that nobody can read out of its job, which ends without its images."""
        self._scripts.set_aside(fence=claim.fence, reason=reason)

    def settle_slots(
        self, claim: Claim, size: SlotsKey, *, slots: int = 0, measured: bool = True, mixed: bool = False
    ) -> int:
        """The slots that the job's pictures of this kind are rendered with; the first answer holds for all.

        slots 0 only looks: 0 is returned when nobody has measured, for this job or another. A number that was
        not `measured` but asked for is not remembered for other jobs. Raises OtherHardware when the job was
        begun on another kind of device and `mixed` does not allow for that.
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
                f"{claim.job_id} was begun on {answer.decode()}, this worker is {size.kind}: their pictures "
                "differ in their bytes. Start it with --mixed-hardware if that does not matter"
            )
        return _unless_lost(claim, answer)

    def cap_slots(self, claim: Claim, size: SlotsKey, slots: int) -> None:
        """Says that the device has no memory for more slots than these; holds for this job alone."""
        _unless_lost(
            claim,
            self._scripts.cap_slots(fence=claim.fence, kind=size.kind, size=size.of_picture, slots=slots),
        )

    def add_work(self, size: SlotsKey, row_evaluations: int, seconds: float) -> None:
        """Adds to what is known of a device's speed; what came before counts for `RATE_WINDOW` at most.

        Of two workers that tell at once one may go unheard: the next shard tells again.
        """
        with redis_errors_as_ours():
            known = self.client.hget(redis_keys.RATES, size.remembered)
            slots, spent = (0, 0.0) if known is None else json.loads(known)
            kept = min(1.0, RATE_WINDOW / spent) if spent > 0 else 0.0
            work = [slots * kept + row_evaluations, spent * kept + seconds]
            pipe = self.client.pipeline()
            pipe.hset(redis_keys.RATES, size.remembered, json.dumps(work))
            pipe.expire(redis_keys.RATES, RATE_TTL)
            pipe.execute()

    def finish(self, claim: Claim) -> None:
        """Ends the job, with one finish event. Raises LeaseLost when another attempt finishes it."""
        if self._scripts.finish(fence=claim.fence) < 0:
            raise LeaseLost(f"{claim.job_id}: another worker is finishing it")

    def reap(self) -> int:
        """Puts back every shard whose lease ran out; returns how many."""
        return self._scripts.reap()

    def waiting(self, worker: str, models: Sequence[str]) -> int:
        """How many claims this worker would find now."""
        return self._scripts.waiting(worker=worker, models=models)

    def queued(self) -> int:
        """Wake-ups in Celery's queue that no worker has taken yet."""
        with redis_errors_as_ours():
            return cast(int, self.client.llen(redis_keys.QUEUE))

    # Workers.

    def heartbeat(self, worker: str, facts: Mapping[str, str | int | float]) -> None:
        """Says that a worker lives and what it does; forgotten after `WORKER_TTL` seconds."""
        with redis_errors_as_ours():
            seconds, micros = self.client.time()
            now = seconds + micros / 1e6
            pipe = self.client.pipeline()
            pipe.zadd(redis_keys.WORKERS, {worker: now})
            pipe.zremrangebyscore(redis_keys.WORKERS, "-inf", now - WORKER_TTL)
            pipe.hset(redis_keys.worker(worker), mapping=dict(facts))
            pipe.expire(redis_keys.worker(worker), WORKER_TTL)
            pipe.execute()

    def forget_worker(self, worker: str) -> None:
        """Takes a worker that ended cleanly off the list."""
        with redis_errors_as_ours():
            self.client.zrem(redis_keys.WORKERS, worker)
            self.client.delete(redis_keys.worker(worker))

    def forget_refusals(self, worker: str) -> None:
        """Takes back what a worker refused: a restarted one may hold another model."""
        with redis_errors_as_ours():
            for job_id in self.client.zrange(redis_keys.ACTIVE, 0, -1):
                self.client.hdel(redis_keys.job(job_id.decode(), "refusals"), worker)

    # Steering.

    def control(self, job_id: str, action: Literal["pause", "resume", "cancel"], reason: str = "") -> None:
        """Pauses, resumes or cancels; acts at the next claim. Raises JobError when the state forbids it."""
        answer = self._scripts.control(job_id=job_id, action=action, reason=reason).decode()
        if answer == "gone":
            raise self._no_such(job_id)
        if answer != "ok":
            raise JobError(f"{job_id} is {answer} already: there is nothing to {action}")

    def retry(self, job_id: str, incarnation: str, run: int, done: Bits, staged: Staged) -> None:
        """Opens a finished job's next run: what was staged is to be rendered, and all else is `done`.

        Its failures are forgotten. Raises JobError when it is not finished, or in another run by now.
        """
        answer = self._scripts.retry(
            job_id=job_id, incarnation=incarnation, run=run, done=bytes(done), staged=staged
        ).decode()
        if answer != "ok":
            why = {
                "gone": "Redis no longer holds it",
                "moved": "it is not finished, or was sent back already",
                "expired": "what was to be sent back has expired: run the same command again",
            }
            raise JobError(f"{job_id}: {why.get(answer, f'its output is {answer}')}")


def _unless_lost(claim: Claim, answer: int) -> int:
    """A fenced script's answer. Raises LeaseLost for a lease that is another attempt's."""
    if answer < 0:
        raise LeaseLost(f"{claim.job_id}: another attempt holds shard {claim.shard} now")
    return answer
