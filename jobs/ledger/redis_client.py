"""A Redis client that fails at once, so that a command that waits can say so."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def redis_client(url: str, *, retries: int = 0, timeout: float = 5.0) -> Any:
    """A client that connects lazily; its type is Any, because redis-py types each answer for asyncio too.

    `timeout`: seconds a call may take; a connection gets at most 5 of them. `retries`: how often a call is
    repeated after a lost connection, without a pause: redis-py's own retries would pause for seconds.
    Raises ValueError for a malformed URL.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=min(5.0, timeout),
        socket_keepalive=True,
        retry=Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
    )
