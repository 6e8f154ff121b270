"""Whether Redis may drop keys when it is full: jobs would vanish from it, or parts of them."""

from __future__ import annotations

from typing import Any

import redis.exceptions

from jobs.errors import LedgerError
from jobs.ledger.redis_errors import as_ledger_errors

NO_EVICTION = "noeviction"


def eviction_policy(client: Any) -> str:
    """Redis' maxmemory-policy; empty where this user may not ask, or the server does not say.

    Raises LedgerUnavailable.
    """
    with as_ledger_errors():
        try:
            return str(client.info("memory").get("maxmemory_policy", ""))
        except redis.exceptions.ResponseError:
            return ""


def eviction_trouble(policy: str) -> str:
    """What is wrong with a policy, and the remedy; empty for one that drops nothing.

    The volatile ones take keys with a time to live: finished jobs, which `retry` needs, what `recover` and
    `retry` are about to take, and workers that are alive.
    """
    if policy in ("", NO_EVICTION):
        return ""
    return (
        f"this Redis may drop keys of jobs when it is full (maxmemory-policy is {policy}): set it to "
        f"{NO_EVICTION}, in redis.conf and by `redis-cli CONFIG SET maxmemory-policy {NO_EVICTION}`"
    )


def refuse_eviction(client: Any, allowed: bool) -> None:
    """Raises LedgerError for a Redis that may drop keys, unless that is `allowed`."""
    trouble = "" if allowed else eviction_trouble(eviction_policy(client))
    if trouble:
        raise LedgerError(f"{trouble}; or go on regardless: --allow-eviction (IMAGEMILL_ALLOW_EVICTION=1)")
