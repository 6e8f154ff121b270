"""What tests of the ledger ask for: a client of its Redis, and a worker that dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from jobs.ledger import redis_keys
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from producer.embedded_redis import EmbeddedRedis
from tests.jobs.ledger.claims import must_claim


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(redis_server.url)


@pytest.fixture
def dies(ledger: Ledger, client: redis.Redis) -> Callable[..., Claim]:
    """A worker claims the next shard, has these images in its slots, or one alone, and dies."""

    def die(slots: list[int] | None = None, *, alone: int | None = None) -> Claim:
        found = must_claim(ledger)
        ledger.renew({found: [] if slots is None else slots}, 30)
        if alone is not None:
            ledger.begin_alone(found, alone)
        client.zadd(redis_keys.LEASES, {f"{found.job_id}/{found.shard}": 1})
        assert ledger.reap() == 1
        return found

    return die
