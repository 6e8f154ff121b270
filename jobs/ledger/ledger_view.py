"""The calls that read the ledger: which jobs there are, their status and contents, and the workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from jobs.errors import JobError, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import Bits, JobSpec, JobStatus, SlotsKey, Submission
from jobs.ledger.redis_client import redis_client
from jobs.ledger.redis_errors import as_ledger_errors

_COUNTS = ("priority", "run", "total", "left", "done", "failed", "shards", "held", "flagged")
_TIMES = ("created", "started", "ended", "finished")
_BLOBS = 16
"""Shards read in one call."""


class LedgerView:
    """The calls that read the ledger. One object per process is enough: threads may share it.

    Every call raises LedgerUnavailable if Redis is away or full, LedgerError if it refuses the call.
    """

    client: Any
    """The Redis client itself, for what no method reads; its errors are redis-py's own."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        """Connects on the first call. `url`: as `jobs.redis_url`; `timeout`: seconds a call may take."""
        try:
            # One retry: a server that was restarted has closed our idle connections.
            self.client = redis_client(url, retries=1, timeout=timeout)
        except ValueError as error:
            raise LedgerError(f"the Redis URL is wrong: it {error}") from None

    def job_ids(self) -> list[str]:
        """Every job that Redis holds, oldest first; removes those whose retention is over from the list."""
        with as_ledger_errors():
            ids = [job_id.decode() for job_id in self.client.zrange(redis_keys.JOBS, 0, -1)]
            gone = [job_id for job_id in ids if not self.client.exists(redis_keys.job(job_id))]
            if gone:
                self.client.zrem(redis_keys.JOBS, *gone)
        return [job_id for job_id in ids if job_id not in gone]

    def status(self, job_id: str) -> JobStatus:
        """The job's status. Raises JobError if Redis holds no job of that id."""
        with as_ledger_errors():
            pipe = self.client.pipeline()
            pipe.hgetall(redis_keys.job(job_id))
            pipe.llen(redis_keys.job(job_id, "ready"))
            pipe.hgetall(redis_keys.job(job_id, "leased"))
            pipe.hgetall(redis_keys.job(job_id, "refusals"))
            pipe.hgetall(redis_keys.job(job_id, "broken"))
            pipe.time()
            raw, ready, leased, refusals, broken, (seconds, micros) = pipe.execute()
        if not raw:
            raise self._no_such(job_id)
        job = {k.decode(): v.decode() for k, v in raw.items()}
        now = seconds + micros / 1e6
        workers = sorted({json.loads(lease)["w"] for lease in leased.values()})
        figures: dict[str, Any] = {name: int(job[name]) for name in _COUNTS}
        figures["cut"] = int(job.get("cut", 0))  # a job that an earlier version finished does not say
        figures |= {name: int(job[name]) / 1000 for name in _TIMES}
        said = {name: self._facts(name, ("notice", "loading")) for name in workers}
        return JobStatus(
            job_id=job_id,
            state=cast(Any, job["state"]),
            outcome=job.get("outcome", ""),
            ending=job["ending"],
            reason=job["reason"],
            paused=job["paused"] == "1",
            shards_ready=ready,
            shards_leased=len(leased),
            images_per_second=_rate(job, now),
            output=job["output"],
            model=job["model"],
            refusals=_standing(refusals, now),
            workers=workers,
            notices={name: notice for name, (notice, _loading) in said.items() if notice},
            loading={name: loading for name, (_notice, loading) in said.items() if loading},
            broken={int(shard): reason.decode() for shard, reason in sorted(broken.items())},
            **figures,
        )

    def spec(self, job_id: str) -> JobSpec:
        """What a worker must know about the job. Raises JobError if there is no such job."""
        with as_ledger_errors():
            spec = self.client.get(redis_keys.job(job_id, "spec"))
        if spec is None:
            raise self._no_such(job_id)
        try:
            return JobSpec(**json.loads(spec))
        except (ValueError, TypeError) as error:
            raise LedgerError(
                f"{job_id}: its settings in Redis are not as this imagemill writes them ({error}): run the "
                "same version for producers and workers, and submit again with it"
            ) from None

    def submission(self, job_id: str) -> Submission:
        """How far the submission of a job has come."""
        fields = self._fields(job_id, ("incarnation", "state", "cursor", "total", "shards", "first_shard"))
        incarnation, state, cursor, images, shards, first_shard = fields
        return Submission(incarnation, state, int(cursor), int(images), int(shards), int(first_shard))

    def writer(self, output: str) -> str | None:
        """The unfinished job that writes to an output folder, if there is one."""
        with as_ledger_errors():
            job_id = self.client.get(redis_keys.output(output))
        return None if job_id is None else cast(bytes, job_id).decode()

    def refuse_while_written(self, output: str, then: str) -> None:
        """Raises JobError while a job writes to an output folder; `then` says what to do afterwards."""
        job_id = self.writer(output)
        if job_id is not None:
            raise JobError(
                f"{output}: {job_id} is writing there: wait for it (`imagemill watch {job_id}`) or "
                f"`imagemill cancel {job_id}`, then {then}"
            )

    def first_shard(self, job_id: str) -> int:
        """The job's lowest shard number, -1 if there is none yet; those below belong to earlier jobs."""
        return int(self._fields(job_id, ("first_shard",))[0])

    def incarnation(self, job_id: str) -> str:
        """The random word that distinguishes this job from one of the same id before Redis was wiped."""
        return self._fields(job_id, ("incarnation",))[0]

    def failures(self, job_id: str) -> dict[int, dict[str, Any]]:
        """The job's failures: index in the job -> shard, position, image_id and reason."""
        with as_ledger_errors():
            raw = self.client.hgetall(redis_keys.job(job_id, "failures"))
        failures = {int(index): json.loads(failure) for index, failure in raw.items()}
        return dict(sorted(failures.items()))

    def done_bits(self, job_id: str) -> Bits:
        """The job's done bits."""
        with as_ledger_errors():
            return Bits(self.client.get(redis_keys.job(job_id, "done")) or b"")

    def shard_blobs(self, job_id: str) -> Iterator[bytes]:
        """Every shard's blob, one by one, in the order of their numbers."""
        shards = redis_keys.job(job_id, "shards")
        with as_ledger_errors():
            numbers = sorted(self.client.hkeys(shards), key=int)
            for start in range(0, len(numbers), _BLOBS):
                yield from self.client.hmget(shards, numbers[start : start + _BLOBS])

    def workers_of(self, job_id: str) -> list[str]:
        """Every worker that claimed a shard of the job."""
        with as_ledger_errors():
            return sorted(name.decode() for name in self.client.smembers(redis_keys.job(job_id, "workers")))

    def workers(self) -> dict[str, dict[str, str]]:
        """Every worker with a heartbeat: name -> the facts it gave."""
        with as_ledger_errors():
            names = sorted(name.decode() for name in self.client.zrange(redis_keys.WORKERS, 0, -1))
            found = {name: self.client.hgetall(redis_keys.worker(name)) for name in names}
        return {
            name: {k.decode(): v.decode() for k, v in facts.items()} for name, facts in found.items() if facts
        }

    def rates(self) -> dict[SlotsKey, float]:
        """Slot evaluations per second, as measured on devices with full slots, by model and size.

        They cover the engine's whole time: texts, decoding and waiting for writers, but not loading.
        """
        with as_ledger_errors():
            raw = self.client.hgetall(redis_keys.RATES)
        works = {SlotsKey(*json.loads(size)): json.loads(work) for size, work in raw.items()}
        return {size: slots / seconds for size, (slots, seconds) in works.items() if seconds > 0}

    def _facts(self, worker: str, names: Sequence[str]) -> list[str]:
        """Facts of a worker's heartbeat; empty where it gives none."""
        with as_ledger_errors():
            values = cast(Any, self.client.hmget(redis_keys.worker(worker), list(names)))
        return ["" if value is None else value.decode() for value in values]

    def _fields(self, job_id: str, names: Sequence[str]) -> list[str]:
        with as_ledger_errors():
            values = cast(Any, self.client.hmget(redis_keys.job(job_id), list(names)))
        if None in values:
            raise self._no_such(job_id)
        return [value.decode() for value in values]

    def _no_such(self, job_id: str) -> JobError:
        there_are = ", ".join(self.job_ids()[-5:]) or "none"
        return JobError(f"there is no job {job_id!r} in this Redis; the latest: {there_are}")


def _standing(refusals: Mapping[bytes, bytes], now: float) -> dict[str, str]:
    """The refusals that still hold: worker -> reason."""
    said = {name.decode(): json.loads(refusal) for name, refusal in refusals.items()}
    return {name: refusal["reason"] for name, refusal in said.items() if refusal["until"] > now * 1000}


def _rate(job: Mapping[str, str], now: float) -> float:
    """Images per second: of the last half minute while a run lasts, of the whole run once it has finished."""
    if job["state"] == "finished":
        taken = (int(job["last_image"]) - int(job["started"])) / 1000
        return int(job["done"]) / taken if taken > 0 and job["started"] != "0" and job["run"] == "1" else 0.0
    since = now - int(job["window_at"]) / 1000
    if job["window_at"] == "0":
        return 0.0
    if float(job["window_rate"]) == 0 or since > 10:
        return int(job["window_count"]) / max(since, 0.001)
    return float(job["window_rate"])
