"""The job's exact state in Redis: what is to be rendered, by whom, and what is done.

The ledger is the truth about work. Every change of more than one key is one Lua script (`jobs/lua/`), fenced
by the job's incarnation and the attempt that a claim gave; time is Redis' own. Keys: `jobs.redis_keys`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Literal, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs import redis_keys
from jobs.errors import JobError, LeaseLost, LedgerError, Overtaken
from jobs.job import Claim, JobSpec, JobStatus, LeaseState, Submission
from jobs.redis_errors import redis_errors_as_ours

_SCRIPTS = (
    "create",
    "add",
    "claim",
    "renew",
    "record",
    "complete",
    "release",
    "reap",
    "waiting",
    "finish",
    "control",
    "retry",
    "refuse",
)
_COUNTS = ("priority", "run", "total", "left", "done", "failed", "shards", "held", "flagged")
_TIMES = ("created", "started", "ended", "finished")
REFUSAL = 300
"""Seconds that a worker's refusal of a job holds: a hiccup of a network must not halt a job for good."""
WORKER_TTL = 60
"""Seconds after its last heartbeat that a worker is still listed."""


class Ledger:
    """The calls that producers and workers make; one object a process, safe to share between threads.

    Every call raises LedgerUnavailable when Redis is away or full, LedgerError when it refuses us.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Connects lazily. `url`: redis:// or rediss://; `timeout`: seconds a call may take."""
        try:
            # redis-py types every answer for its asyncio client too.
            self._redis: Any = redis.Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=min(5.0, timeout),
                socket_keepalive=True,
                # A server that was restarted closes our idle connections; what waits long, waits visibly.
                retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            )
        except ValueError as error:
            raise LedgerError(
                f"the Redis URL is wrong ({error}): use redis://:PASSWORD@HOST:PORT/0"
            ) from None
        lua = files("jobs.lua")
        prelude = lua.joinpath("prelude.lua").read_text()
        self._scripts = {
            name: self._redis.register_script(prelude + lua.joinpath(f"{name}.lua").read_text())
            for name in _SCRIPTS
        }

    def _run(self, script: str, *arguments: str | int | bytes) -> Any:
        with redis_errors_as_ours():
            return self._scripts[script](args=list(arguments))

    def ping(self) -> None:
        """Returns when Redis answers, takes us and has room; raises what is wrong otherwise."""
        with redis_errors_as_ours():
            self._redis.lpushx(redis_keys.NOTHING, "")

    # Submitting.

    def create(self, spec: JobSpec, digest: str, least_number: int) -> tuple[str, bool]:
        """Makes a job, or finds the unfinished one of the same output and digest.

        Returns (job_id, created). Raises JobError when another job owns the output.
        """
        fields: dict[str, str | int] = {
            "name": spec.name,
            "output": spec.output,
            "model": spec.model,
            "pipeline": spec.pipeline,
            "max_failures": 0 if spec.max_failures is None else spec.max_failures,
            "retention": spec.retention,
        }
        pairs = [part for pair in fields.items() for part in pair]
        answer, job_id = self._run(
            "create",
            spec.name,
            least_number,
            redis_keys.output(spec.output),
            digest,
            secrets.token_hex(8),
            spec.priority,
            json.dumps(asdict(spec), ensure_ascii=False),
            *pairs,
        )
        if answer == b"taken":
            raise JobError(
                f"{spec.output}: {job_id.decode()} is writing there and its manifest was another: "
                f"wait for it, or `imagemill cancel {job_id.decode()}`, or name another output"
            )
        return job_id.decode(), answer == b"created"

    def submission(self, job_id: str) -> Submission:
        """How far the submission of a job has come."""
        fields = self._fields(job_id, ("incarnation", "state", "cursor", "total", "shards", "first_shard"))
        incarnation, state, cursor, images, shards, first_shard = fields
        return Submission(incarnation, state, int(cursor), int(images), int(shards), int(first_shard))

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
        parts = [part for shard in shards for part in shard]
        answer = self._run("add", job_id, incarnation, cursor, new_cursor, int(seal), held, *parts).decode()
        if answer != "added":
            why = {
                "gone": "Redis no longer knows it (was it wiped?): submit again",
                "ending": "it was cancelled or stopped",
                "closed": "another submit sealed it",
                "moved": "another submit of the same manifest is adding to it",
            }[answer]
            raise (Overtaken if answer in {"closed", "moved"} else JobError)(f"{job_id}: {why}")

    # Rendering.

    def claim(
        self, worker: str, *, lease: float, loaded: str, idle: float, load_time: float, models: Sequence[str]
    ) -> Claim | None:
        """Leases the next shard, or the finishing of a job; None when there is nothing for this worker now.

        Seconds: `lease`, `idle` (since this worker last had work of its loaded pipeline), `load_time`.
        `loaded` is a `JobSpec.pipeline`, "" for none; `models` empty means any.
        """
        answer = self._run(
            "claim",
            worker,
            secrets.token_hex(4),
            int(lease * 1000),
            loaded,
            int(idle * 1000),
            int(load_time * 1000),
            _json_list(models),
        )
        if not answer:
            return None
        kind, job_id, incarnation, shard, attempt = (part.decode() for part in answer[:5])
        return Claim(cast(Literal["shard", "finish"], kind), job_id, incarnation, shard, attempt, answer[5])

    def spec(self, job_id: str) -> JobSpec:
        """What a worker must know of the job. Raises JobError when there is none."""
        with redis_errors_as_ours():
            spec = self._redis.get(redis_keys.job(job_id, "spec"))
        if spec is None:
            raise self._no_such(job_id)
        return JobSpec(**json.loads(spec))

    def first_shard(self, job_id: str) -> int:
        """The job's lowest shard number: those below it are of earlier jobs of its output."""
        return int(self._fields(job_id, ("first_shard",))[0])

    def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseState]:
        """Renews leases; for each: held, lost, or ending (the job was cancelled or stopped)."""
        if not claims:
            return []
        parts = [part for claim in claims for part in claim.fence]
        return [state.decode() for state in self._run("renew", int(lease * 1000), *parts)]

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
        return self._mark("record", claim, done, failed, flagged)

    def complete(
        self,
        claim: Claim,
        done: Sequence[int],
        failed: Mapping[int, Mapping[str, Any]],
        flagged: Collection[int] = (),
    ) -> int:
        """Ends a shard that is committed on disk; takes all its indices again. As `record` otherwise."""
        return self._mark("complete", claim, done, failed, flagged)

    def _mark(
        self,
        script: str,
        claim: Claim,
        done: Sequence[int],
        failed: Mapping[int, Mapping[str, Any]],
        flagged: Collection[int],
    ) -> int:
        marks = [f"{index}!" if index in flagged else index for index in done]
        failures = [part for i, f in failed.items() for part in (i, json.dumps(f, ensure_ascii=False))]
        turned = int(self._run(script, *claim.fence, len(marks), *marks, *failures))
        if turned < 0:
            raise LeaseLost(f"{claim.job_id}: shard {claim.shard} is another attempt's by now")
        return turned

    def release(self, claim: Claim) -> None:
        """Gives a claim back unfinished; nothing happens when it was lost."""
        self._run("release", *claim.fence)

    def refuse(self, claim: Claim, worker: str, reason: str) -> None:
        """Gives a claim back and says why this worker takes no shard of the job for `REFUSAL` seconds."""
        self._run("refuse", *claim.fence, worker, reason, REFUSAL * 1000)

    def finish(self, claim: Claim) -> None:
        """Ends the job, with one finish event. Raises LeaseLost when another attempt finishes it."""
        if int(self._run("finish", claim.job_id, claim.incarnation, claim.attempt)) < 0:
            raise LeaseLost(f"{claim.job_id}: another worker is finishing it")

    def workers_of(self, job_id: str) -> list[str]:
        """Every worker that claimed a shard of the job."""
        with redis_errors_as_ours():
            return sorted(name.decode() for name in self._redis.smembers(redis_keys.job(job_id, "workers")))

    def reap(self) -> int:
        """Puts back every shard whose lease ran out; returns how many."""
        return int(self._run("reap"))

    def waiting(self, worker: str, models: Sequence[str]) -> int:
        """How many claims this worker would find now."""
        return int(self._run("waiting", worker, _json_list(models)))

    def queued(self) -> int:
        """Wake-ups in Celery's queue that no worker has taken yet."""
        with redis_errors_as_ours():
            return cast(int, self._redis.llen(redis_keys.QUEUE))

    # Workers.

    def heartbeat(self, worker: str, facts: Mapping[str, str | int | float]) -> None:
        """Says that a worker lives and what it does; forgotten after `WORKER_TTL` seconds."""
        with redis_errors_as_ours():
            now = _seconds(self._redis.time())
            pipe = self._redis.pipeline()
            pipe.zadd(redis_keys.WORKERS, {worker: now})
            pipe.zremrangebyscore(redis_keys.WORKERS, "-inf", now - WORKER_TTL)
            pipe.hset(redis_keys.worker(worker), mapping=dict(facts))
            pipe.expire(redis_keys.worker(worker), WORKER_TTL)
            pipe.execute()

    def forget_worker(self, worker: str) -> None:
        """Takes a worker that ended cleanly off the list."""
        with redis_errors_as_ours():
            self._redis.zrem(redis_keys.WORKERS, worker)
            self._redis.delete(redis_keys.worker(worker))

    def forget_refusals(self, worker: str) -> None:
        """Takes back what a worker refused: a restarted one may hold another model."""
        with redis_errors_as_ours():
            for job_id in self._redis.zrange(redis_keys.ACTIVE, 0, -1):
                self._redis.hdel(redis_keys.job(job_id.decode(), "refusals"), worker)

    def workers(self) -> dict[str, dict[str, str]]:
        """Every worker with a heartbeat, by name, with the facts it gave."""
        with redis_errors_as_ours():
            names = sorted(name.decode() for name in self._redis.zrange(redis_keys.WORKERS, 0, -1))
            found = {name: self._redis.hgetall(redis_keys.worker(name)) for name in names}
        return {
            name: {k.decode(): v.decode() for k, v in facts.items()} for name, facts in found.items() if facts
        }

    # Watching and steering.

    def job_ids(self) -> list[str]:
        """Every job Redis holds, oldest first."""
        with redis_errors_as_ours():
            ids = [job_id.decode() for job_id in self._redis.zrange(redis_keys.JOBS, 0, -1)]
            gone = [job_id for job_id in ids if not self._redis.exists(redis_keys.job(job_id))]
            if gone:
                self._redis.zrem(redis_keys.JOBS, *gone)
        return [job_id for job_id in ids if job_id not in gone]

    def status(self, job_id: str) -> JobStatus:
        """The job as it stands. Raises JobError when Redis holds none of that id."""
        with redis_errors_as_ours():
            pipe = self._redis.pipeline()
            pipe.hgetall(redis_keys.job(job_id))
            pipe.llen(redis_keys.job(job_id, "ready"))
            pipe.hgetall(redis_keys.job(job_id, "leased"))
            pipe.hgetall(redis_keys.job(job_id, "refusals"))
            pipe.time()
            raw, ready, leased, refusals, time = pipe.execute()
        if not raw:
            raise self._no_such(job_id)
        job = {k.decode(): v.decode() for k, v in raw.items()}
        workers = sorted({json.loads(lease)["w"] for lease in leased.values()})
        figures: dict[str, Any] = {name: int(job[name]) for name in _COUNTS}
        figures |= {name: int(job[name]) / 1000 for name in _TIMES}
        return JobStatus(
            job_id=job_id,
            state=cast(Any, job["state"]),
            outcome=job.get("outcome", ""),
            ending=job["ending"],
            reason=job["reason"],
            paused=job["paused"] == "1",
            shards_ready=ready,
            shards_leased=len(leased),
            images_per_second=_rate(job, _seconds(time)),
            output=job["output"],
            model=job["model"],
            refusals=_standing(refusals, _seconds(time)),
            workers=workers,
            notices=self._notices(workers),
            **figures,
        )

    def failures(self, job_id: str) -> dict[int, dict[str, Any]]:
        """The job's failures: index in the job -> shard, position, image_id, reason."""
        with redis_errors_as_ours():
            raw = self._redis.hgetall(redis_keys.job(job_id, "failures"))
        failures = {int(index): json.loads(failure) for index, failure in raw.items()}
        return dict(sorted(failures.items()))

    def done_bits(self, job_id: str) -> bytes:
        """The done bits: image i is bit 7 - i % 8 of byte i // 8."""
        with redis_errors_as_ours():
            return cast(bytes, self._redis.get(redis_keys.job(job_id, "done")) or b"")

    def shard_blobs(self, job_id: str) -> Iterator[bytes]:
        """Every shard's blob, one by one, in no order."""
        with redis_errors_as_ours():
            for _number, blob in self._redis.hscan_iter(redis_keys.job(job_id, "shards"), count=16):
                yield blob

    def control(self, job_id: str, action: Literal["pause", "resume", "cancel"], reason: str = "") -> None:
        """Pauses, resumes or cancels; acts at the next claim. Raises JobError when the state forbids it."""
        answer = self._run("control", job_id, action, reason).decode()
        if answer == "gone":
            raise self._no_such(job_id)
        if answer != "ok":
            raise JobError(f"{job_id} is {answer} already: there is nothing to {action}")

    def retry(
        self,
        job_id: str,
        incarnation: str,
        run: int,
        held: Sequence[int],
        lacking: Sequence[int],
        shards: Sequence[tuple[int, bytes]],
    ) -> None:
        """Opens a finished job's next run with new shards (number, blob) for the indices `lacking`.

        `held` are indices that were not done but that the output holds by now. Raises JobError.
        """
        parts = [part for shard in shards for part in shard]
        answer = self._run(
            "retry", job_id, incarnation, run, len(held), *held, len(lacking), *lacking, *parts
        ).decode()
        if answer != "ok":
            why = {
                "gone": "Redis no longer holds it",
                "moved": "it is not finished, or was sent back already",
            }
            raise JobError(f"{job_id}: {why.get(answer, f'its output is {answer}')}")

    def incarnation(self, job_id: str) -> str:
        """The random word that tells this job from one of the same id before Redis was wiped."""
        return self._fields(job_id, ("incarnation",))[0]

    def _notices(self, workers: Sequence[str]) -> dict[str, str]:
        with redis_errors_as_ours():
            said = {name: self._redis.hget(redis_keys.worker(name), "notice") for name in workers}
        return {name: notice.decode() for name, notice in said.items() if notice}

    def _fields(self, job_id: str, names: Sequence[str]) -> list[str]:
        with redis_errors_as_ours():
            values = cast(Any, self._redis.hmget(redis_keys.job(job_id), list(names)))
        if None in values:
            raise self._no_such(job_id)
        return [value.decode() for value in values]

    def _no_such(self, job_id: str) -> JobError:
        there_are = ", ".join(self.job_ids()[-5:]) or "none"
        return JobError(f"there is no job {job_id!r} in this Redis; the latest: {there_are}")


def _seconds(time: Any) -> float:
    return float(time[0]) + float(time[1]) / 1e6


def _standing(refusals: Mapping[bytes, bytes], now: float) -> dict[str, str]:
    """The refusals that still hold: worker -> reason."""
    said = {name.decode(): json.loads(refusal) for name, refusal in refusals.items()}
    return {name: refusal["reason"] for name, refusal in said.items() if refusal["until"] > now * 1000}


def _rate(job: Mapping[str, str], now: float) -> float:
    """Images a second over the last half minute while a run goes on, over the whole run once it finished."""
    if job["state"] == "finished":
        taken = (int(job["last_image"]) - int(job["started"])) / 1000
        return int(job["done"]) / taken if taken > 0 and job["started"] != "0" and job["run"] == "1" else 0.0
    since = now - int(job["window_at"]) / 1000
    if job["window_at"] == "0":
        return 0.0
    if float(job["window_rate"]) == 0 or since > 10:
        return int(job["window_count"]) / max(since, 0.001)
    return float(job["window_rate"])


def _json_list(items: Sequence[str]) -> str:
    return json.dumps(list(items))
