"""Many jobs' keys in one round trip, as text: what a person asks for must not cost a round trip a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jobs.ledger import redis_keys
from jobs.ledger.job_reading import StoredJob

_AT_ONCE = 50
"""Jobs that one script reads: Redis serves others in between, a few milliseconds later."""


def look_up(client: Any, job_ids: Sequence[str]) -> tuple[list[StoredJob], float]:
    """What Redis holds of each of these jobs, and its clock, in seconds since 1970.

    Raises redis-py's errors. `client` is a Redis client.
    """
    script = files("jobs.ledger.lua").joinpath("look.lua").read_text("utf-8")
    # Without MULTI, in which Redis 7.0 refuses to read while it is full.
    pipe = client.pipeline(transaction=False)
    pipe.script_load(script)
    for start in range(0, len(job_ids), _AT_ONCE):
        some = job_ids[start : start + _AT_ONCE]
        sha = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        pipe.evalsha(sha, 0, redis_keys.JOB, redis_keys.ACTIVE, *some)
    pipe.time()
    _sha, *answers, (seconds, micros) = pipe.execute()
    stored = [StoredJob(*json.loads(look.decode(errors="replace"))) for looks in answers for look in looks]
    return stored, seconds + micros / 1e6
