"""The calls that read the ledger: which jobs there are, their status and contents, and the workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis.exceptions

from jobs.errors import JobError, JobUnreadable, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.eviction import read_memory
from jobs.ledger.job import Bits, JobSpec, JobStatus, SlotsKey, Submission, UnreadableJob
from jobs.ledger.job_lookup import look_up
from jobs.ledger.job_reading import (
    StoredJob,
    is_figure,
    read_failures,
    read_figure,
    read_job,
    text_of,
    unreadable,
)
from jobs.ledger.overview import Counted, Overview
from jobs.ledger.redis_client import redis_client
from jobs.ledger.redis_errors import as_ledger_errors
from jobs.ledger.speeds import read_rates

_Held = TypeVar("_Held")
_LISTS = (redis_keys.JOBS, redis_keys.ACTIVE)
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
            ids = [text_of(job_id) for job_id in self._held(redis_keys.JOBS)]
            pipe = self.client.pipeline(transaction=False)
            for job_id in ids:
                pipe.exists(redis_keys.job(job_id))
            there = dict(zip(ids, pipe.execute(), strict=True))
            gone = [job_id for job_id, exists in there.items() if not exists]
            if gone:
                self.client.zrem(redis_keys.JOBS, *gone)
        return [job_id for job_id in ids if there[job_id]]

    def outputs_in_work(self) -> set[str]:
        """The outputs of all unfinished jobs, as their manifests call them."""
        with as_ledger_errors():
            pipe = self.client.pipeline(transaction=False)
            for name in self._held(redis_keys.ACTIVE):
                pipe.hget(redis_keys.job(text_of(name)), "output")
            found = pipe.execute(raise_on_error=False)
        return {text_of(output) for output in found if isinstance(output, bytes)}

    def jobs(self) -> list[JobStatus | UnreadableJob]:
        """Every job, oldest first; those that cannot be read, or whose own key is lost, are named as such."""
        with as_ledger_errors():
            ids = [text_of(name) for key in _LISTS for name in self._held(key)]
            ids = list(dict.fromkeys(ids))
            found = self._read(ids)
            gone = [job_id for job_id, job in zip(ids, found, strict=True) if job is None]
            if gone:
                self.client.zrem(redis_keys.JOBS, *gone)
        return [job for job in found if job is not None]

    def status(self, job_id: str) -> JobStatus:
        """The job's status.

        Raises JobError if Redis holds no job of that id, JobUnreadable if it is damaged.
        """
        with as_ledger_errors():
            [job] = self._read([job_id])
        if job is None:
            raise self._no_such(job_id)
        if isinstance(job, UnreadableJob):
            raise JobUnreadable(job.reason)
        return job

    def _read(self, job_ids: Sequence[str]) -> list[JobStatus | UnreadableJob | None]:
        """Jobs by their ids, in two round trips; None for one that Redis does not hold."""
        stored, now = look_up(self.client, job_ids)
        facts = self._facts({name for one in stored for name in one.workers})
        return [_job(job_id, one, facts, now) for job_id, one in zip(job_ids, stored, strict=True)]

    def overview(self) -> Overview:
        """All jobs, oldest first, all workers, and how Redis stands; three round trips. Changes nothing."""
        with as_ledger_errors():
            pipe = self.client.pipeline(transaction=False)
            for key in (*_LISTS, redis_keys.WORKERS):
                pipe.zrange(key, 0, -1)
            pipe.hgetall(redis_keys.COUNTED)
            pipe.info("memory")
            *answers, counted, told = pipe.execute(raise_on_error=False)
            jobs, active, workers = (
                _if_foreign(one, []) if isinstance(one, redis.exceptions.RedisError) else one
                for one in answers
            )
            ids = [text_of(name) for name in dict.fromkeys([*jobs, *active])]
            stored, now = look_up(self.client, ids)
            facts = self._facts(sorted({text_of(name) for name in workers}))
        found = [_job(job_id, one, facts, now) for job_id, one in zip(ids, stored, strict=True)]
        return Overview(
            [job for job in found if job is not None],
            {name: said for name, said in facts.items() if said},
            _counted(counted),
            # A user without a right to INFO is told nothing of the memory.
            read_memory(told if isinstance(told, Mapping) else {}),
            now,
        )

    def spec(self, job_id: str) -> JobSpec:
        """What a worker must know about the job.

        Raises JobError if there is no such job, JobUnreadable if this version cannot read it.
        """
        # What an image may be told takes long to import; no listing needs it.
        from jobs.ledger.shard import read_base

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
        version = text_of(wire) if isinstance(wire, bytes) else "0"
        if not is_figure(version) or int(version) > redis_keys.WIRE:
            this = redis_keys.WIRE
            raise unreadable(job_id, f"it is of wire version {version}, this imagemill reads {this}")
        try:
            found = JobSpec(**json.loads(spec))
            # A size beyond all bounds would take a worker's memory.
            read_base(found.base)
            return found
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
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
            there = job_id is not None and self.client.exists(redis_keys.job(text_of(job_id)))
        return text_of(job_id) if there else None

    def written(self, job_id: str) -> tuple[str, str]:
        """The output that a job writes to and the job's incarnation, each empty where Redis lost it."""
        with as_ledger_errors():
            try:
                held = self.client.hmget(redis_keys.job(job_id), ["output", "incarnation"])
            except redis.exceptions.ResponseError as error:
                held = _if_foreign(error, [None, None])
        output, incarnation = ("" if one is None else text_of(one) for one in held)
        return output, incarnation

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
        return read_failures(raw)

    def some_failures(self, job_id: str, most: int) -> tuple[dict[int, dict[str, Any]], int]:
        """About `most` of the job's failures, as `failures` gives them, and how many there are in all.

        The same ones at each call, as far as there are no others: all of up to `most`, else those that Redis
        finds first.
        """
        key, raw, cursor = redis_keys.job(job_id, "failures"), dict[bytes, bytes](), 0
        with as_ledger_errors():
            try:
                count = self.client.hlen(key)
                while len(raw) < min(most, count):
                    cursor, found = self.client.hscan(key, cursor, count=most)
                    raw |= found
                    if cursor == 0:
                        break
            except redis.exceptions.ResponseError as error:
                return _if_foreign(error, ({}, 0))
        return read_failures(raw), count

    def done_bits(self, job_id: str) -> Bits:
        """The job's done bits."""
        with as_ledger_errors():
            return Bits(self.client.get(redis_keys.job(job_id, "done")) or b"")

    def shard_blobs(self, job_id: str) -> Iterator[bytes]:
        """Every shard's blob, one by one, in the order of their numbers; skips fields that are none."""
        shards = redis_keys.job(job_id, "shards")
        with as_ledger_errors():
            fields = cast(list[bytes], self.client.hkeys(shards))
            numbers = sorted((one for one in fields if is_figure(text_of(one))), key=int)
            for start in range(0, len(numbers), _BLOBS):
                yield from self.client.hmget(shards, numbers[start : start + _BLOBS])

    def workers_of(self, job_id: str) -> list[str]:
        """Every worker that claimed a shard of the job."""
        with as_ledger_errors():
            return sorted(text_of(name) for name in self.client.smembers(redis_keys.job(job_id, "workers")))

    def workers(self) -> dict[str, dict[str, str]]:
        """Every worker with a heartbeat: name -> the facts it gave."""
        with as_ledger_errors():
            facts = self._facts(sorted({text_of(name) for name in self._held(redis_keys.WORKERS)}))
        return {name: dict(said) for name, said in facts.items() if said}

    def worker(self, name: str) -> Mapping[str, str]:
        """The facts that a worker gave; none of one that is not heard of."""
        with as_ledger_errors():
            return self._facts([name]).get(name, {})

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

    def _facts(self, workers: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """What workers' heartbeats say, in one round trip; nothing of one whose key is of another kind."""
        names = list(workers)
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(redis_keys.worker(name))
        said = pipe.execute(raise_on_error=False)
        return {
            name: {text_of(key): text_of(value) for key, value in one.items()}
            for name, one in zip(names, said, strict=True)
            if isinstance(one, Mapping) or _if_foreign(one, False)
        }

    def _fields(self, job_id: str, names: Sequence[str]) -> list[str]:
        with as_ledger_errors():
            try:
                values = cast(Any, self.client.hmget(redis_keys.job(job_id), list(names)))
            except redis.exceptions.ResponseError as error:
                values = _if_foreign(error, [None] * len(names))
        if None in values:
            self.status(job_id)  # says so if there is no such job, or if it is damaged
            raise unreadable(job_id, f"it lacks {names[values.index(None)]!r}")
        return [text_of(value) for value in values]

    def _no_such(self, job_id: str) -> JobError:
        there_are = ", ".join(self.job_ids()[-5:]) or "none"
        return JobError(f"there is no job {job_id!r} in this Redis; the latest: {there_are}")


def _job(
    job_id: str, stored: StoredJob, facts: Mapping[str, Mapping[str, str]], now: float
) -> JobStatus | UnreadableJob | None:
    """A job from what Redis holds of it; None where it holds nothing."""
    if stored.fields == {} and stored.active is None:
        return None
    try:
        return read_job(job_id, stored, facts, now)
    except JobUnreadable as error:
        return UnreadableJob(job_id, str(error))


def _counted(stored: Any) -> Counted | None:
    if isinstance(stored, redis.exceptions.NoPermissionError):
        return None
    if isinstance(stored, redis.exceptions.RedisError):
        return _if_foreign(stored, Counted())
    told = {text_of(name): text_of(text) for name, text in stored.items()}
    figures = {name: told.get(name, "") for name in ("lease_expiries", "refusals")}
    return Counted(**{name: int(text) if is_figure(text) else 0 for name, text in figures.items()})


def _if_foreign(error: redis.exceptions.RedisError, instead: _Held) -> _Held:
    """`instead` if a key is of another kind; raises any other error again."""
    if "WRONGTYPE" in str(error):
        return instead
    raise error
