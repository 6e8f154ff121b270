"""Faults of jobs that nobody submitted: somebody who can write to Redis puts them beside the real one."""

from __future__ import annotations

import json
import os
from functools import cache

import zstandard

from jobs.ledger import redis_keys
from tests.faults.field import Field

IMAGES = 8


def other_wire(field: Field) -> None:
    """A job of a later version, which names the real one's output: refused until it is cancelled."""
    assert field.leg is not None
    job_id = _forge(field, _some_shard(field), output=field.leg.output, wire=redis_keys.WIRE + 98)
    _refused_and_cancelled(field, job_id)


def size_beyond_all_bounds(field: Field) -> None:
    """A job whose pictures would take terabytes: refused until it is cancelled."""
    job_id = _forge(field, _some_shard(field), height=10**9)
    _refused_and_cancelled(field, job_id)


def bomb(field: Field) -> None:
    """A job whose shard of a few bytes unpacks to more than any may: it is set aside, and the job ends."""
    job_id = _forge(field, _bomb())
    field.wait(lambda: field.ledger.status(job_id).state == "finished", f"{job_id} ends")
    status = field.ledger.status(job_id)
    assert (status.outcome, status.done, len(status.broken)) == ("failures", 0, 1), status


def _forge(
    field: Field, shard: bytes, *, output: str = "", wire: int = redis_keys.WIRE, **base: object
) -> str:
    """Writes a job of one shard as a submission would, in the likeness of the one that is under way.

    `output`: without it, one of its own. `base`: changes to what its lines have in common.
    """
    assert field.leg is not None
    field.hit()
    real, name, client = field.leg.job_id, f"forged{field.hits}", field.client
    job_id = f"{name}-1"
    if output == "":
        output = field.place(name)
        if not field.in_bucket:
            (field.folder / name).mkdir()
    spec = json.loads(client.get(redis_keys.job(real, "spec")))
    spec |= {"name": name, "output": output, "base": spec["base"] | base}
    figures = dict.fromkeys(("done", "failed", "flagged", "held", "epoch", "first_shard", "started"), 0)
    fields = client.hgetall(redis_keys.job(real)) | {
        "wire": wire, "incarnation": os.urandom(8).hex(), "digest": os.urandom(8).hex(), "priority": 0,
        "output": output, "output_key": redis_keys.output(output), "state": "sealed", "paused": 0,
        "shards": 1, "total": IMAGES, "left": IMAGES, "cursor": IMAGES,
    } | figures  # fmt: skip
    place = fields.pop(b"place", None)
    pipe = client.pipeline()
    pipe.hset(redis_keys.job(job_id), mapping={_name(key): value for key, value in fields.items()})
    pipe.set(redis_keys.job(job_id, "spec"), json.dumps(spec))
    pipe.hset(redis_keys.job(job_id, "shards"), "0", shard)
    pipe.rpush(redis_keys.job(job_id, "ready"), "0")
    pipe.zadd(redis_keys.JOBS, {job_id: float(fields[b"created"])})
    pipe.zadd(redis_keys.ACTIVE, {job_id: 0})
    if place is not None:
        pipe.delete(redis_keys.CLAIMABLE)  # made again from all jobs, this one too
    pipe.execute()
    return job_id


def _name(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode()


def _some_shard(field: Field) -> bytes:
    assert field.leg is not None
    shards = redis_keys.job(field.leg.job_id, "shards")
    return next(iter(field.client.hgetall(shards).values()))


@cache
def _bomb() -> bytes:
    return zstandard.compress(b'{"v":1,"indices":0,"rows":[' + b" " * (101 << 20) + b"{}]}")


def _refused_and_cancelled(field: Field, job_id: str) -> None:
    """Waits until every worker has refused a job, and cancels it: nothing of it stays without an end."""
    refusals = redis_keys.job(job_id, "refusals")
    field.wait(lambda: field.client.hlen(refusals) == len(field.names), f"every worker refuses {job_id}")
    field.ledger.control(job_id, "cancel")
    assert field.client.zscore(redis_keys.ACTIVE, job_id) is None, "a job that was cancelled is active"
