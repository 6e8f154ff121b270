"""A wake-up is a message of about a kilobyte that names no work; a LedgerError says why one is not sent."""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from typing import Any

import pytest
import redis

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.broker import RENDER_TASK, celery_app, wake
from jobs.ledger.redis_keys import QUEUE
from producer.embedded_redis import EmbeddedRedis


def test_wake_ups_lie_in_the_queue_that_the_keeper_counts(redis_server: EmbeddedRedis) -> None:
    client = redis.Redis.from_url(redis_server.url)
    app = celery_app(redis_server.url)
    wake(app, 3)
    wake(app, 0)
    assert client.llen(QUEUE) == 3
    raw = client.lrange(QUEUE, 0, -1)
    messages = [json.loads(message) for message in raw]
    assert {message["headers"]["task"] for message in messages} == {RENDER_TASK}
    assert len({message["headers"]["id"] for message in messages}) == 3
    assert {message["headers"]["argsrepr"] for message in messages} == {"()"}
    assert max(map(len, raw)) < 1500


def test_without_a_redis_a_wake_up_fails_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="wake-ups were not sent: Redis does not answer"):
        wake(celery_app("redis://127.0.0.1:1/0"), 1)
    assert time.monotonic() - begun < 20, "it was tried again and again"


def test_a_full_redis_is_named_as_such(redis_server: EmbeddedRedis) -> None:
    app = celery_app(redis_server.url)
    wake(app, 1)
    redis.Redis.from_url(redis_server.url).config_set("maxmemory", "1")
    with pytest.raises(LedgerUnavailable, match="wake-ups were not sent: Redis is full"):
        wake(app, 1)


def test_a_wrong_password_is_named_as_such(redis_server: EmbeddedRedis) -> None:
    app = celery_app(f"redis://:wrong@{redis_server.url.rpartition('@')[2]}")
    with pytest.raises(LedgerError, match="not sent: Redis refuses the password") as caught:
        wake(app, 1)
    assert type(caught.value) is LedgerError


def test_a_redis_that_dies_under_a_wake_up_lets_its_connection_be_closed_and_itself_acknowledged(
    redis_server: EmbeddedRedis,
) -> None:
    """What Celery's consumer does then; anything but a connection's error would end the worker."""
    app = celery_app(redis_server.url)
    wake(app, 1)
    connection = app.connection_for_read()
    taken: list[Any] = []
    app.amqp.TaskConsumer(connection, on_message=taken.append).consume()
    connection.drain_events(timeout=5)
    [wake_up] = taken
    app.amqp.TaskConsumer(connection.channel(), on_message=taken.append).consume()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.1)  # both channels wait for an answer now
    os.kill(redis_server.pid, signal.SIGKILL)
    connection.collect(socket_timeout=1)
    connection.close()
    wake_up.ack()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://h:1/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        (
            "rediss://h:1/0?ssl_ca_certs=/ca.pem",
            {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"},
        ),
        ("rediss://h:1/0?ssl_cert_reqs=none", {"ssl_cert_reqs": "none"}),
        ("sentinel://h:1/0?master_name=m&ssl=true", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("redis://h:1/0", None),
    ],
)
def test_a_tls_servers_certificate_is_checked_unless_the_url_says_otherwise(
    url: str, expected: dict[str, object] | None
) -> None:
    assert (celery_app(url).connection_for_write().ssl or None) == expected


def test_nothing_hangs_on_a_message_that_is_lost_doubled_or_late() -> None:
    """The settings that the measurements asked for; each has its reason in docs/decisions.md."""
    conf = celery_app("redis://").conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (True, True)
    assert conf.worker_prefetch_multiplier == 1
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.worker_soft_shutdown_timeout == 0
    assert conf.broker_connection_max_retries is None
    assert conf.accept_content == ["json"]
    assert conf.broker_transport_options["visibility_timeout"] >= 6 * 3600


def test_events_leave_nothing_in_redis_after_a_flower_that_was_killed(
    redis_server: EmbeddedRedis, client: redis.Redis
) -> None:
    app = celery_app(redis_server.url)

    def send(events: int) -> int:
        with app.events.default_dispatcher() as dispatcher:
            for number in range(events):
                dispatcher.send("task-succeeded", uuid=str(number), result="x" * 1000)
        return sum(client.memory_usage(key) or 0 for key in client.keys("*"))  # type: ignore[union-attr, misc]

    with app.connection_for_read() as connection:
        # Its queue is bound, and nobody will delete it.
        app.events.Receiver(connection, handlers={}).queue(connection.channel()).declare()
        before = send(1)
        assert send(300) == before
