"""Whether Redis may drop keys when it is full: jobs would vanish from it, or parts of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.exceptions

from jobs.errors import LedgerError
from jobs.ledger.redis_errors import as_ledger_errors

NO_EVICTION = "noeviction"


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """What Redis says of its memory."""

    policy: str
    """Its maxmemory-policy; empty where this user may not ask, or the server does not say."""
    full: bool
    """Whether it has no room for new keys."""
    used: int = 0
    """Bytes."""
    most: int = 0
    """Bytes that it may use; 0 where nothing bounds them, or the server does not say."""


def redis_memory(client: Any) -> RedisMemory:
    """Asks Redis how its memory stands. Raises LedgerUnavailable."""
    with as_ledger_errors():
        try:
            told = client.info("memory")
        except redis.exceptions.ResponseError:
            told = {}
    return read_memory(told)


def read_memory(told: Mapping[str, Any]) -> RedisMemory:
    """How the memory stands by what `INFO memory` told; nothing of it where it told nothing."""
    used, most = int(told.get("used_memory", 0)), int(told.get("maxmemory", 0))
    return RedisMemory(str(told.get("maxmemory_policy", "")), 0 < most <= used, used, most)


def eviction_policy(client: Any) -> str:
    """Redis' maxmemory-policy; empty where this user may not ask, or the server does not say.

    Raises LedgerUnavailable.
    """
    return redis_memory(client).policy


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
