"""An error of redis-py reaches a person as a LedgerError with the remedy; a defect stays a defect."""

from __future__ import annotations

import pytest
import redis
import redis.exceptions

from jobs.errors import LedgerError, LedgerFull, LedgerUnavailable
from jobs.ledger.ledger import Ledger
from jobs.ledger.redis_errors import as_ledger_errors
from producer.embedded_redis import EmbeddedRedis


@pytest.mark.parametrize(
    ("error", "ours", "words"),
    [
        (redis.exceptions.ConnectionError("refused"), LedgerUnavailable, "is it started"),
        (redis.exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED]"), LedgerError, "ssl_ca_certs"),
        (redis.exceptions.TimeoutError("timed out"), LedgerUnavailable, "is it started"),
        (redis.exceptions.BusyLoadingError("loading the dataset"), LedgerUnavailable, "does not answer yet"),
        (redis.exceptions.MaxConnectionsError("too many"), LedgerUnavailable, "maxclients"),
        (redis.exceptions.OutOfMemoryError("OOM"), LedgerFull, "maxmemory"),
        (
            redis.exceptions.ResponseError("OOM command not allowed in a script"),
            LedgerFull,
            "maxmemory",
        ),
        (redis.exceptions.ResponseError("MISCONF cannot persist"), LedgerUnavailable, "check its disk"),
        (redis.exceptions.ReadOnlyError("You can't write"), LedgerUnavailable, "the primary"),
        (redis.exceptions.ResponseError("NOREPLICAS too few"), LedgerUnavailable, "cannot write now"),
        (redis.exceptions.ResponseError("a script: -NOPERM no rights"), LedgerError, "~imagemill"),
        (redis.exceptions.InvalidResponse("HTTP/1.1 400"), LedgerError, "answers with an error"),
        (redis.exceptions.AuthenticationError("WRONGPASS"), LedgerError, "IMAGEMILL_REDIS_URL"),
        (redis.exceptions.NoPermissionError("NOPERM no rights"), LedgerError, "IMAGEMILL_REDIS_URL"),
    ],
)
def test_each_error_gets_its_class_and_its_remedy(
    error: Exception, ours: type[LedgerError], words: str
) -> None:
    with pytest.raises(LedgerError, match=words) as caught, as_ledger_errors():
        raise error
    assert type(caught.value) is ours
    assert caught.value.__suppress_context__


def test_an_unexpected_error_keeps_its_own_words() -> None:
    text = "user_script:1: attempt to index a nil value"
    with pytest.raises(LedgerError, match=text) as caught, as_ledger_errors():
        raise redis.exceptions.ResponseError(text)
    assert type(caught.value) is LedgerError


def test_without_an_error_nothing_changes() -> None:
    with as_ledger_errors():
        answer = 1
    assert answer == 1


def test_a_real_server_with_another_password_refuses_ours(redis_server: EmbeddedRedis) -> None:
    scheme, _, place = redis_server.url.partition("://")
    url = f"{scheme}://:wrong@{place.rpartition('@')[2]}"
    with pytest.raises(LedgerError, match="refuses the password") as caught:
        Ledger(url).ping()
    assert type(caught.value) is LedgerError


def test_a_real_server_that_is_full_can_be_read_and_is_called_full(redis_server: EmbeddedRedis) -> None:
    redis.Redis.from_url(redis_server.url).config_set("maxmemory", "1")
    ledger = Ledger(redis_server.url)
    assert ledger.workers() == {}
    with pytest.raises(LedgerUnavailable, match="Redis is full"):
        ledger.ping()


def test_a_real_replica_is_named_as_a_server_that_cannot_write_now(redis_server: EmbeddedRedis) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.replicaof("127.0.0.1", 1)
    with pytest.raises(LedgerUnavailable, match="cannot write now"):
        Ledger(redis_server.url).heartbeat("w1", {"pid": 1})
    with pytest.raises(LedgerUnavailable, match="cannot write now"), as_ledger_errors():
        client.eval("return redis.call('SET', 'a', 'b')", 0)


def test_a_real_user_without_rights_reads_which_ones_are_needed(redis_server: EmbeddedRedis) -> None:
    client = redis.Redis.from_url(redis_server.url)
    client.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~else*", "+@all")
    url = f"redis://bob:pw@{redis_server.url.rpartition('@')[2]}"
    for call in (Ledger(url).ping, Ledger(url).reap):
        with pytest.raises(LedgerError, match="~imagemill") as caught:
            call()
        assert type(caught.value) is LedgerError
