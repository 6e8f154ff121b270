"""What redis-py raises reaches a person as one of ours, with the remedy; a defect stays a defect."""

from __future__ import annotations

import pytest
import redis
import redis.exceptions

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger import Ledger
from jobs.redis_errors import redis_errors_as_ours
from producer.embedded_redis import EmbeddedRedis


@pytest.mark.parametrize(
    ("error", "ours", "words"),
    [
        (redis.exceptions.ConnectionError("refused"), LedgerUnavailable, "is it started"),
        (redis.exceptions.TimeoutError("timed out"), LedgerUnavailable, "is it started"),
        (redis.exceptions.BusyLoadingError("LOADING"), LedgerUnavailable, "does not answer"),
        (redis.exceptions.OutOfMemoryError("OOM"), LedgerUnavailable, "maxmemory"),
        (
            redis.exceptions.ResponseError("OOM command not allowed in a script"),
            LedgerUnavailable,
            "maxmemory",
        ),
        (redis.exceptions.ResponseError("MISCONF cannot persist"), LedgerUnavailable, "disk space"),
        (redis.exceptions.AuthenticationError("WRONGPASS"), LedgerError, "IMAGEMILL_REDIS_URL"),
        (redis.exceptions.NoPermissionError("NOPERM no rights"), LedgerError, "IMAGEMILL_REDIS_URL"),
    ],
)
def test_each_trouble_gets_its_class_and_its_remedy(
    error: Exception, ours: type[LedgerError], words: str
) -> None:
    with pytest.raises(LedgerError, match=words) as caught, redis_errors_as_ours():
        raise error
    assert type(caught.value) is ours
    assert caught.value.__suppress_context__


def test_a_defect_in_a_script_keeps_its_own_error() -> None:
    error = redis.exceptions.ResponseError("user_script:1: attempt to index a nil value")
    with pytest.raises(redis.exceptions.ResponseError) as caught, redis_errors_as_ours():
        raise error
    assert caught.value is error


def test_what_goes_well_goes_through() -> None:
    with redis_errors_as_ours():
        answer = 1
    assert answer == 1


def test_a_real_server_with_another_password_refuses_us(redis_server: EmbeddedRedis) -> None:
    scheme, _, place = redis_server.url.partition("://")
    url = f"{scheme}://:wrong@{place.rpartition('@')[2]}"
    with pytest.raises(LedgerError, match="refuses the password") as caught:
        Ledger(url).ping()
    assert type(caught.value) is LedgerError


def test_a_real_server_that_is_full_can_be_read_and_is_told_full(redis_server: EmbeddedRedis) -> None:
    redis.Redis.from_url(redis_server.url).config_set("maxmemory", "1")
    ledger = Ledger(redis_server.url)
    assert ledger.workers() == {}
    with pytest.raises(LedgerUnavailable, match="Redis is full"):
        ledger.heartbeat("w1", {"pid": 1})
