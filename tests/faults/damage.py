"""Faults of Redis' keys and clock: keys are lost or damaged at random, a job vanishes, the clock steps."""

from __future__ import annotations

import time
from contextlib import suppress

from jobs.errors import JobError, JobUnreadable
from jobs.ledger import redis_keys
from tests.faults.field import Field, Leg
from tests.faults.oracle import Verdict

HOUR = 3600
_LASTING = {"spec", "shards"}
"""Parts of a job without which it ends another way: `job_lost`."""


def _keys(leg: Leg) -> dict[str, str]:
    """Each key whose loss workers make good by themselves -> its kind."""
    parts = {part: kind for part, kind in redis_keys.KINDS.items() if part not in _LASTING}
    keys = {redis_keys.job(leg.job_id, part): kind for part, kind in parts.items()}
    keys |= {key: kind for key, kind in redis_keys.SHARED.items() if kind != "stream"}
    return keys | {redis_keys.output(leg.output): "string"}


def key_damaged(field: Field, how: str) -> None:
    """One key after the other, three of them, while workers use them."""
    assert field.leg is not None
    keys = _keys(field.leg)
    field.hit()
    for name in field.random.sample(sorted(keys), 3):
        kind, client = keys[name], field.client
        pipe = client.pipeline()
        if how == "evicted":
            pipe.delete(name)
        elif how == "of another kind":
            pipe.delete(name)
            pipe.set(name, "x") if kind != "string" else pipe.rpush(name, "x")
            pipe.expire(name, HOUR)  # the oracle knows no key of ours without a time to live
        elif client.exists(name):
            _spoil(field, name, kind)
        pipe.execute()
        time.sleep(field.random.random() / 2)
    leased = redis_keys.job(field.leg.job_id, "leased")
    field.wait(lambda: b"rubbish" not in client.hkeys(leased), "what cannot be read is dropped")


def _spoil(field: Field, name: str, kind: str) -> None:
    """Rubbish in place of one thing that a key holds, and beside it."""
    client = field.client
    if kind == "string":
        client.set(name, "rubbish", keepttl=True)
    elif kind == "hash":
        fields = [*client.hkeys(name), b"rubbish"]
        client.hset(name, mapping={field.random.choice(fields): "rubbish", b"rubbish": "rubbish"})
    elif kind == "list":
        client.lpushx(name, "rubbish")
    elif kind == "zset":
        client.zadd(name, {"rubbish": 1})
    else:
        client.sadd(name, "rubbish")


def job_lost(field: Field, part: str | None) -> Verdict:
    """What a job cannot do without is evicted; the commands that messages name lead out."""
    with field.side(24, shard_size=8) as leg:
        field.pace(0.1)
        field.submit_again(leg)
        field.wait(lambda: field.ledger.status(leg.job_id).done > 2, f"{leg.job_id} is under way")
        field.hit()
        field.client.delete(redis_keys.job(leg.job_id, part))

        def ended() -> bool:
            if part != "shards":
                with suppress(JobError):
                    field.ledger.control(leg.job_id, "cancel")
            try:
                return field.ledger.status(leg.job_id).state == "finished"
            except JobUnreadable:
                return False
            except JobError:
                return True  # nothing is left of it

        field.wait(ended, f"{leg.job_id} has ended")
        field.pace(0.01)
        field.submit_again(leg)
        return field.finish(leg)


def clock_steps(field: Field, seconds: int) -> None:
    """A worker is killed, and the clock of Redis steps: all that was noted lies as far off the other way.

    What the dead worker held must come back, and nobody else loses a thing.
    """
    assert field.leg is not None
    pid = field.some_pid()
    field.hit()
    field.client.eval(_STEP, 0, -1000 * seconds, redis_keys.job(field.leg.job_id))
    field.kill(pid)


_STEP = """
local step, job = tonumber(ARGV[1]), ARGV[2]
for _, member in ipairs(redis.call('ZRANGE', 'imagemill:leases', 0, -1)) do
  redis.call('ZINCRBY', 'imagemill:leases', step, member)
end
for _, member in ipairs(redis.call('ZRANGE', 'imagemill:workers', 0, -1)) do
  redis.call('ZINCRBY', 'imagemill:workers', step / 1000, member)
end
redis.call('INCRBY', 'imagemill:reaped', step)
for _, field in ipairs({'waiting_since', 'last_claim', 'window_at', 'started', 'created', 'last_image'}) do
  local time = tonumber(redis.call('HGET', job, field) or '0')
  if time > 0 then redis.call('HSET', job, field, time + step) end
end
"""
