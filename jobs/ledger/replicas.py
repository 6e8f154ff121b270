"""Whether a replica holds what the ledger has just taken: a failover may lose what no replica has."""

from __future__ import annotations

from typing import Any

from redis.sentinel import SentinelConnectionPool

from jobs.ledger import redis_keys
from jobs.ledger.redis_errors import as_ledger_errors

_SECONDS = 2.0
"""How long to wait for a replica. It answers in milliseconds if there is one."""
_TTL = 60


def replica_has_it(client: Any) -> bool:
    """Whether a replica has everything that Redis was sent until now; waits for it up to 2 s.

    True without asking where the URL names no Sentinels: then nothing fails over. Raises LedgerError.
    """
    if not isinstance(client.connection_pool, SentinelConnectionPool):
        return True
    with as_ledger_errors():
        pipe = client.pipeline(transaction=False)
        # WAIT waits for its own connection's writes, and the pool may give it another than the last call had.
        # A replica that has this write has all before it.
        pipe.set(redis_keys.CONFIRMED, "", ex=_TTL)
        pipe.wait(1, int(_SECONDS * 1000))
        _, replicas = pipe.execute()
    return int(replicas) > 0
