"""A Redis client that fails at once, so that a command that waits can say so."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection

from jobs.ledger.sentinels import Sentinels, sentinel_options
from jobs.redis_url import parse_redis_url


class WrongKind(redis.exceptions.ResponseError):
    """What answers is no Redis that can hold the ledger: a node of a cluster, or a Sentinel."""


def redis_client(url: str, *, retries: int = 0, timeout: float = 5.0) -> Any:
    """A client that connects lazily; its type is Any, because redis-py types each answer for asyncio too.

    `timeout`: seconds a call may take, unless the URL says; a connection gets at most 5. `retries`: how
    often a call is repeated after a lost connection, without a pause: redis-py's own retries would pause
    for seconds. With a Sentinel's URL each new connection goes to the master of that moment. Raises
    ValueError for a wrong URL; a call raises WrongKind if a cluster or a Sentinel answers.
    """
    address = parse_redis_url(url)
    timeout = timeout if address.socket_timeout is None else address.socket_timeout
    connecting = address.socket_connect_timeout
    options: dict[str, Any] = {
        "username": address.username or None,
        "password": address.password or None,
        "db": address.database,
        "socket_timeout": timeout,
        "socket_connect_timeout": min(5.0, timeout) if connecting is None else connecting,
        "retry": Retry(NoBackoff(), retries, supported_errors=(redis.ConnectionError,)),
        "redis_connect_func": _greet,
    }
    if address.health_check_interval is not None:
        options["health_check_interval"] = address.health_check_interval
    if address.kind == "unix":
        options |= {"connection_class": redis.UnixDomainSocketConnection, "path": address.path}
        return redis.Redis.from_pool(redis.ConnectionPool(**options))
    options |= {"socket_keepalive": True, **address.tls}
    if address.kind == "sentinel":
        manager = Sentinels(list(address.hosts), sentinel_options(address))
        options["connection_class"] = (
            SentinelManagedSSLConnection if address.use_tls else SentinelManagedConnection
        )
        pool = SentinelConnectionPool(address.master_name, manager, **options)  # type: ignore[no-untyped-call]
        return redis.Redis.from_pool(pool)
    (host, port) = address.hosts[0]
    kind = redis.SSLConnection if address.kind == "rediss" else redis.Connection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, host=host, port=port, **options))


def _greet(connection: Any) -> None:
    """Does what redis-py does for a new connection; raises WrongKind where a job would be half stored."""
    connection.on_connect()
    said = getattr(connection, "handshake_metadata", None)
    if not said:
        connection.send_command("HELLO", check_health=False)
        said = connection.read_response()
    if not isinstance(said, dict):  # RESP2 has lists for maps
        said = dict(zip(said[::2], said[1::2], strict=True))
    mode = {_word(name): value for name, value in said.items()}.get("mode", "standalone")
    if _word(mode) == "cluster":
        raise WrongKind(
            "a node of a Redis Cluster answers: imagemill's scripts change keys of many slots at once: use "
            "one Redis or Valkey without cluster-enabled; sentinel:// keeps it available (docs/operate.md)"
        )
    if _word(mode) == "sentinel":
        raise WrongKind(
            "a Sentinel answers in the place of a Redis: write "
            "sentinel://:PASSWORD@HOST:26379/0?master_name=NAME in IMAGEMILL_REDIS_URL"
        )


def _word(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
