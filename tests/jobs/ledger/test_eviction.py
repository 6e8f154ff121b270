"""A Redis that may drop keys of jobs is not taken without a word."""

from __future__ import annotations

import pytest
import redis

from jobs.errors import LedgerError
from jobs.ledger.eviction import eviction_policy, refuse_eviction
from producer.embedded_redis import EmbeddedRedis


def test_our_own_redis_drops_nothing(client: redis.Redis) -> None:
    refuse_eviction(client, allowed=False)
    assert eviction_policy(client) == "noeviction"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_any_other_policy_is_refused_with_the_remedy_unless_it_is_allowed(
    client: redis.Redis, policy: str
) -> None:
    client.config_set("maxmemory-policy", policy)
    with pytest.raises(LedgerError, match=f"{policy}.*CONFIG SET maxmemory-policy noeviction.*--allow-evic"):
        refuse_eviction(client, allowed=False)
    refuse_eviction(client, allowed=True)


def test_a_user_who_may_not_ask_is_not_stopped(redis_server: EmbeddedRedis, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@all", "-@dangerous")
    bob = redis.Redis.from_url(f"redis://bob:pw@{redis_server.url.rpartition('@')[2]}")
    assert eviction_policy(bob) == ""
    refuse_eviction(bob, allowed=False)
