"""The calls that read the ledger: which jobs there are, their status and contents, and the workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast

import redis.exceptions

from jobs.errors import JobError, JobUnreadable, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.job import Bits, JobSpec, JobStatus, SlotsKey, Submission, UnreadableJob
from jobs.ledger.job_reading import StoredJob, read_failure, read_figure, read_job, unreadable
from jobs.ledger.redis_client import redis_client
from jobs.ledger.redis_errors import as_ledger_errors
from jobs.ledger.speeds import read_rates

_Held = TypeVar("_Held")
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
            ids = [job_id.decode(errors="replace") for job_id in self._held(redis_keys.JOBS)]
            gone = [job_id for job_id in ids if not self.client.exists(redis_keys.job(job_id))]
            if gone:
                self.client.zrem(redis_keys.JOBS, *gone)
        return [job_id for job_id in ids if job_id not in gone]

    def jobs(self) -> list[JobStatus | UnreadableJob]:
        """Every job, oldest first; those that cannot be read, or whose own key is lost, are named as such."""
        found: list[JobStatus | UnreadableJob] = []
        ids = self.job_ids()
        with as_ledger_errors():
            active = [name.decode(errors="replace") for name in self._held(redis_keys.ACTIVE)]
        for job_id in dict.fromkeys([*ids, *active]):
            try:
                found.append(self.status(job_id))
            except JobUnreadable as error:
                found.append(UnreadableJob(job_id, str(error)))
            except JobError:
                continue  # its retention ended meanwhile
        return found

    def status(self, job_id: str) -> JobStatus:
        """The job's status.

        Raises JobError if Redis holds no job of that id, JobUnreadable if it is damaged.
        """
        with as_ledger_errors():
            # Without MULTI, in which Redis 7.0 refuses to read while it is full.
            pipe = self.client.pipeline(transaction=False)
            pipe.hgetall(redis_keys.job(job_id))
            pipe.llen(redis_keys.job(job_id, "ready"))
            pipe.hgetall(redis_keys.job(job_id, "leased"))
            pipe.hgetall(redis_keys.job(job_id, "refusals"))
            pipe.hgetall(redis_keys.job(job_id, "broken"))
            pipe.zscore(redis_keys.ACTIVE, job_id)
            pipe.time()
            *answers, (seconds, micros) = pipe.execute(raise_on_error=False)
        stored = StoredJob(*answers)
        if not stored.hash and not isinstance(stored.fields, Exception) and stored.active is None:
            raise self._no_such(job_id)
        said = {name: self._facts(name, ("notice", "loading")) for name in stored.workers}
        return read_job(job_id, stored, said, seconds + micros / 1e6)

    def spec(self, job_id: str) -> JobSpec:
        """What a worker must know about the job.

        Raises JobError if there is no such job, JobUnreadable if this version cannot read it.
        """
        with as_ledger_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.get(redis_keys.job(job_id, "spec"))
            pipe.hget(redis_keys.job(job_id), "wire")
            pipe.exists(redis_keys.job(job_id))
            spec, wire, there = pipe.execute(raise_on_error=False)
        if not there:
            raise self._no_such(job_id)
        if not isinstance(spec, bytes):
            raise unreadable(job_id, "its settings are lost")
        version = wire.decode(errors="replace") if isinstance(wire, bytes) else "0"
        if not version.isdigit() or int(version) > redis_keys.WIRE:
            this = redis_keys.WIRE
            raise unreadable(job_id, f"it is of wire version {version}, this imagemill reads {this}")
        try:
            return JobSpec(**json.loads(spec))
        except (ValueError, TypeError, RecursionError) as error:
            raise unreadable(job_id, f"its settings are not as this imagemill writes them: {error}") from None

    def submission(self, job_id: str) -> Submission:
        """How far the submission of a job has come."""
        fields = self._fields(job_id, ("incarnation", "state", "cursor", "total", "shards", "first_shard"))
        return Submission(fields[0], fields[1], *(read_figure(job_id, field) for field in fields[2:]))

    def writer(self, output: str) -> str | None:
        """The unfinished job that writes to an output folder, if there is one."""
        with as_ledger_errors():
            try:
                job_id = self.client.get(redis_keys.output(output))
            except redis.exceptions.ResponseError:
                return None  # a key of another kind, which the next submission drops
            # An owner that is gone owns nothing.
            there = job_id is not None and self.client.exists(redis_keys.job(job_id.decode()))
        return cast(bytes, job_id).decode() if there else None

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
        return read_figure(job_id, self._fields(job_id, ("first_shard",))[0])

    def incarnation(self, job_id: str) -> str:
        """The random word that distinguishes this job from one of the same id before Redis was wiped."""
        return self._fields(job_id, ("incarnation",))[0]

    def failures(self, job_id: str) -> dict[int, dict[str, Any]]:
        """The job's failures: index in the job -> shard, position, image_id and reason."""
        with as_ledger_errors():
            raw = self._table(redis_keys.job(job_id, "failures"))
        failures = {int(index): read_failure(failure) for index, failure in raw.items() if index.isdigit()}
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
            names = sorted(name.decode(errors="replace") for name in self._held(redis_keys.WORKERS))
            found = {name: self._table(redis_keys.worker(name)) for name in names}
        return {
            name: {k.decode(): v.decode() for k, v in facts.items()} for name, facts in found.items() if facts
        }

    def rates(self) -> dict[SlotsKey, float]:
        """Slot evaluations per second, as measured on devices with full slots, by model and size.

        They cover the engine's whole time: texts, decoding and waiting for writers, but not loading.
        """
        with as_ledger_errors():
            raw = self._table(redis_keys.RATES)
        return read_rates(raw)

    def _held(self, key: str) -> list[bytes]:
        """The members of a sorted set; none of a key of another kind, which the next script drops."""
        try:
            return cast(list[bytes], self.client.zrange(key, 0, -1))
        except redis.exceptions.ResponseError as error:
            return _if_foreign(error, [])

    def _table(self, key: str) -> dict[bytes, bytes]:
        """A hash; an empty one for a key of another kind."""
        try:
            return cast(dict[bytes, bytes], self.client.hgetall(key))
        except redis.exceptions.ResponseError as error:
            return _if_foreign(error, {})

    def _facts(self, worker: str, names: Sequence[str]) -> list[str]:
        """Facts of a worker's heartbeat; empty where it gives none."""
        with as_ledger_errors():
            try:
                values = cast(Any, self.client.hmget(redis_keys.worker(worker), list(names)))
            except redis.exceptions.ResponseError as error:
                values = _if_foreign(error, [None] * len(names))
        return ["" if value is None else value.decode() for value in values]

    def _fields(self, job_id: str, names: Sequence[str]) -> list[str]:
        with as_ledger_errors():
            try:
                values = cast(Any, self.client.hmget(redis_keys.job(job_id), list(names)))
            except redis.exceptions.ResponseError as error:
                values = _if_foreign(error, [None] * len(names))
        if None in values:
            self.status(job_id)  # says so if there is no such job, or if it is damaged
            raise unreadable(job_id, f"it lacks {names[values.index(None)]!r}")
        return [value.decode() for value in values]

    def _no_such(self, job_id: str) -> JobError:
        there_are = ", ".join(self.job_ids()[-5:]) or "none"
        return JobError(f"there is no job {job_id!r} in this Redis; the latest: {there_are}")


def _if_foreign(error: redis.exceptions.ResponseError, instead: _Held) -> _Held:
    """`instead` if a key is of another kind; raises any other error again."""
    if "WRONGTYPE" in str(error):
        return instead
    raise error
