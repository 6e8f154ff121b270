"""A Redis URL means one thing to the ledger and to the broker, or is refused in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis

from jobs.ledger.broker import celery_app
from jobs.ledger.redis_client import redis_client
from jobs.redis_url import RedisAddress, parse_redis_url

PLACES = [
    ("redis://", "localhost", 6379, 0, None, None),
    ("redis://h", "h", 6379, 0, None, None),
    ("redis://h:1/", "h", 1, 0, None, None),
    ("valkey://:p@h:1/3", "h", 1, 3, None, "p"),
    ("redis://ann:p%40%2F%3B%25@h/07", "h", 6379, 7, "ann", "p@/;%"),
    ("redis://[::1]:7/2", "::1", 7, 2, None, None),
    ("redis://[fe80::1%25eth0]:7/2", "fe80::1%eth0", 7, 2, None, None),
    ("rediss://h/1", "h", 6379, 1, None, None),
    ("valkeys://:p@h/1", "h", 6379, 1, None, "p"),
]


def of_ledger(url: str) -> dict[str, Any]:
    """How the ledger's connections are made."""
    return dict(redis_client(url).connection_pool.connection_kwargs)


def of_broker(url: str) -> Any:
    """The broker's connection as kombu has read it."""
    return celery_app(url).connection_for_write()


@pytest.mark.parametrize(("url", "host", "port", "database", "user", "password"), PLACES)
def test_ledger_and_broker_go_to_the_same_place_as_the_same_user(
    url: str, host: str, port: int, database: int, user: str | None, password: str | None
) -> None:
    ledger, broker = of_ledger(url), of_broker(url)
    assert [ledger[name] for name in ("host", "port", "db", "username", "password")] == [
        host, port, database, user, password,
    ]  # fmt: skip
    assert (broker.hostname, broker.port, int(broker.virtual_host)) == (host, port, database)
    assert (broker.userid, broker.password) == (user, password)
    assert (broker.transport_cls == "rediss") == url.startswith(("rediss", "valkeys"))


OPTIONS = "health_check_interval=30&socket_timeout=7.5&socket_connect_timeout=2"


@pytest.mark.parametrize(
    "begin", ["redis://h/0?", "rediss://h/0?", "unix:///r.sock?", "sentinel://h/0?master_name=m&"]
)
def test_every_option_reaches_both(begin: str) -> None:
    expected = {"health_check_interval": 30, "socket_timeout": 7.5, "socket_connect_timeout": 2.0}
    ledger, broker = of_ledger(begin + OPTIONS), of_broker(begin + OPTIONS).transport_options
    for name, value in expected.items():
        assert (ledger[name], broker[name]) == (value, value)


@pytest.mark.parametrize("begin", ["rediss://h/0?", "sentinel://h/0?master_name=m&ssl=true&"])
def test_every_option_of_tls_reaches_both(begin: str) -> None:
    url = (
        f"{begin}ssl_ca_certs=/ca&ssl_ca_path=/cas&ssl_certfile=/c&ssl_keyfile=/k&ssl_password=p"
        "&ssl_cert_reqs=CERT_REQUIRED&ssl_check_hostname=true"
    )
    expected = {
        "ssl_ca_certs": "/ca", "ssl_ca_path": "/cas", "ssl_certfile": "/c", "ssl_keyfile": "/k",
        "ssl_password": "p", "ssl_cert_reqs": "required", "ssl_check_hostname": True,
    }  # fmt: skip
    assert of_broker(url).ssl == expected
    ledger = of_ledger(url)
    assert {name: ledger[name] for name in expected} == expected
    assert issubclass(redis_client(url).connection_pool.connection_class, redis.SSLConnection)


@pytest.mark.parametrize(
    ("url", "database"),
    [("unix:///run/my%20redis.sock?db=3", 3), ("redis+socket:///run/my%20redis.sock?virtual_host=3", 3),
     ("unix://ann:p@/run/my%20redis.sock", 0)],
)  # fmt: skip
def test_a_socket_is_the_same_file_and_database_for_both(url: str, database: int) -> None:
    ledger, broker = of_ledger(url), of_broker(url)
    assert (ledger["path"], ledger["db"]) == ("/run/my redis.sock", database)
    credentials = "ann:p@" if "ann" in url else ""
    assert broker.hostname == f"socket://{credentials}/run/my%20redis.sock?virtual_host={database}"


def test_a_sockets_path_may_hold_an_at_sign_and_so_may_an_option_that_quotes_it() -> None:
    assert parse_redis_url("unix://:p@/run/redis@1.sock").path == "/run/redis@1.sock"
    assert parse_redis_url("unix:///run/redis@1.sock").path == "/run/redis@1.sock"
    assert parse_redis_url("rediss://h?ssl_ca_certs=/a%40b").tls == {"ssl_ca_certs": "/a@b"}


def test_sentinels_may_be_written_as_celery_writes_them() -> None:
    short = parse_redis_url("sentinel://ann:p@a:1;b;[::1]:3/2?master_name=m&sentinel_password=s")
    long = parse_redis_url(
        "sentinel://ann:p@a:1/2;sentinel://ann:p@b/2;sentinel://[::1]:3/2?master_name=m&sentinel_password=s"
    )
    assert short == long
    assert short == RedisAddress(
        kind="sentinel", hosts=(("a", 1), ("b", 26379), ("::1", 3)), database=2, username="ann", password="p",
        master_name="m", sentinel_password="s",
    )  # fmt: skip
    broker = of_broker("sentinel://ann:p@a:1;b;[::1]:3/2?master_name=m&sentinel_password=s")
    assert broker.alt == [f"sentinel://ann:p@{place}/2" for place in ("a:1", "b:26379", "[::1]:3")]
    assert broker.transport_options["master_name"] == "m"
    assert broker.transport_options["sentinel_kwargs"]["password"] == "s"
    assert (broker.userid, broker.password) == ("ann", "p")


THERE_ARE = "there are health_check_interval, socket_connect_timeout and socket_timeout"


@pytest.mark.parametrize(
    ("url", "trouble"),
    [
        ("secret", "must look like redis://:PASSWORD@HOST:6379/0, or begin with redis, "),
        ("amqp://:secret@h", "or begin with redis, "),
        ("redis://h/0?decode_responses=true", f"?decode_responses= is no option of redis://: {THERE_ARE}"),
        ("redis://h/0?protocol=3", f"?protocol= is no option of redis://: {THERE_ARE}"),
        ("redis://h/0?foo=bar", f"?foo= is no option of redis://: {THERE_ARE}"),
        ("valkey://h/0?ssl_ca_certs=/ca", f"?ssl_ca_certs= is no option of valkey://: {THERE_ARE}"),
        ("redis://h?db=3", "?db= is no option of redis://: write the database behind the port, as in redis://"),
        ("redis:///0?host=h", "?host= is no option of redis://: write redis://USER:PASSWORD@HOST:6379/0"),
        ("redis://h?password=secret", "?password= is no option of redis://: write redis://USER:PASSWORD@HOST"),
        ("rediss://h?foo=1", "health_check_interval, socket_connect_timeout, socket_timeout, ssl_ca_certs, "
         "ssl_ca_path, ssl_cert_reqs, ssl_certfile, ssl_check_hostname, ssl_keyfile and ssl_password"),
        ("redis://h/abc", "has '/abc' in the place of the database"),
        ("redis://h/-1", "has '/-1' in the place of the database"),
        ("redis://h/0/1", "has '/0/1' in the place of the database"),
        ("redis://h:0x1/0", "has a port that is no number"),
        ("redis://:secret/word@h/0", "has an @ behind the first / or ?"),
        ("redis://:secret/word", "has a port that is no number up to 65535"),
        ("redis://:se#cret@h/0", "has a #"),
        ("redis://:pa?secret@h:6379/0", "in a user or password write / as %2F, ? as %3F, # as %23"),
        ("redis://:12/secret@h/0", "has an @ behind the first / or ?: in a user or password"),
        ("rediss://h?socket_timeout=secret@h", "write an @ of an option as %40"),
        ("sentinel://:pa?secret@h/0?master_name=m", "has an @ behind the first / or ?"),
        ("sentinel://a;:12/secret@h/0?master_name=m", "has an @ behind the first / or ?"),
        ("unix://:pa/secret@/run/redis.sock", "has an @ behind the first / or ?"),
        ("redis://[::1/0", "is no URL"),
        ("redis://\u2100:secret@h/0", "is no URL"),
        ("redis://a;redis://b", "names several servers"),
        ("redis://h?socket_timeout=0", "socket_timeout=0: must be seconds, above 0 and up to 3600"),
        ("redis://h?socket_timeout=nan", "socket_timeout=nan: must be seconds"),
        ("redis://h?socket_timeout=", "socket_timeout=: must be seconds"),
        ("redis://h?health_check_interval=0", "health_check_interval=0: must be whole seconds, from 1"),
        ("redis://h?socket_timeout=1&socket_timeout=1", "has socket_timeout twice"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs=maybe: must be required, optional or none"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname=maybe: must be true or false"),
        ("unix://run/redis.sock", "write unix:///PATH"),
        ("unix:///", "write unix:///PATH"),
        ("unix:///r.sock?virtual_host=1", "?virtual_host= is no option of unix://"),
        ("unix:///r.sock?db=x", "db=x: must be a number from 0 on"),
        ("sentinel://h/0", "names no master: add ?master_name=NAME"),
        ("sentinel:///0?master_name=m", "names a Sentinel without a host"),
        ("sentinel://a;redis://b/0?master_name=m", "name Sentinels only"),
        ("sentinel://:secret@a;sentinel://:secreter@b/0?master_name=m", "parts differ in password"),
        ("sentinel://a/1;sentinel://b/0?master_name=m", "parts differ in database"),
        ("sentinel://a?master_name=m&sentinel_password=", "sentinel_password=…: must be a text"),
        ("sentinel://a?master_name=m&ssl=false&ssl_ca_certs=/ca", "ssl_ca_certs beside ssl=false"),
    ],
)  # fmt: skip
def test_what_both_cannot_take_is_refused_in_one_line_without_a_password(url: str, trouble: str) -> None:
    with pytest.raises(ValueError, match=re.escape(trouble)) as refused:
        parse_redis_url(url)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
