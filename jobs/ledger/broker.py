"""Celery over Redis, configured so that nothing depends on a message: each is only a wake-up.

The settings come from measurements with Celery and kombu 5.7 on Redis 7; comments give the reasons.
"""

from __future__ import annotations

import ssl

import redis.exceptions
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.redis_errors import as_ledger_error
from jobs.ledger.redis_keys import QUEUE

RENDER_TASK = "imagemill.render"

_VISIBILITY_TIMEOUT = 6 * 3600
"""Seconds; longer than any shard takes, and the same in every worker: one with a shorter timeout would steal
the running tasks of all others. A stolen or lost wake-up does no harm: the ledger holds the work."""


class _Channel(kombu_redis.Channel):  # type: ignore[misc]
    """Survives an outage of Redis.

    After one, kombu 5.7 may restore or acknowledge a message on a closed connection. That raises an
    AttributeError, which ends the worker and unloads its model, or leaks a socket with every outage.
    """

    do_restore = False
    """Unacknowledged messages need not come back when a connection closes: the ledger holds the work."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledges if there is a connection; otherwise the message comes again in hours."""
        if not self.closed:
            super().basic_ack(delivery_tag, multiple)


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with the channel above."""

    Channel = _Channel


def celery_app(url: str) -> Celery:
    """The Celery application of producers, workers and Flower. Connects on first use."""
    # kombu looks a transport up by the scheme of its URL.
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "jobs.ledger.broker:Transport"))
    app = Celery("imagemill", broker=url)
    app.conf.update(
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        # Celery's own default gives up after 100 tries.
        broker_connection_max_retries=None,
        # True loses the task when Redis restarts.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0,
        worker_send_task_events=True,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT,
            "unacked_restore_interval": 30,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 10,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            # A sender of wake-ups does not wait for a Redis that is away. Celery itself retries a worker's
            # connection (broker_connection_max_retries).
            "max_retries": 0,
        },
    )
    if url.startswith("rediss://"):
        # kombu's default accepts any certificate. The URL (?ssl_cert_reqs=…, ssl_ca_certs=…) overrides this.
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


def wake(app: Celery, count: int) -> None:
    """Sends `count` wake-ups; each makes one free task slot look into the ledger.

    Raises LedgerUnavailable if Redis is away or full, LedgerError if it refuses the message. Idle workers
    send missing wake-ups later.
    """
    try:
        with app.producer_or_acquire() as producer:
            for _ in range(count):
                app.send_task(RENDER_TASK, producer=producer, retry=False)
    except (OperationalError, redis.exceptions.RedisError, OSError) as error:
        raise _not_sent(error) from None


def _not_sent(error: Exception) -> LedgerError:
    """kombu wraps redis-py's error, and calls even a wrong password a connection error."""
    cause = error.__cause__ if isinstance(error, OperationalError) and error.__cause__ is not None else error
    if isinstance(cause, redis.exceptions.RedisError):
        ours = as_ledger_error(cause)
    else:
        ours = LedgerUnavailable(f"Redis does not answer ({cause}): is it started?")
    return type(ours)(f"the wake-ups were not sent: {ours}")
