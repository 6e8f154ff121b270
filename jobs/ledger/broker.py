"""Celery over Redis, set so that nothing hangs on a message: each is only a wake-up.

Source of the settings: measurements with Celery and kombu 5.7 on Redis 7; the reasons stand beside them.
"""

from __future__ import annotations

import ssl

import redis.exceptions
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.redis_errors import as_ours
from jobs.ledger.redis_keys import QUEUE

RENDER_TASK = "imagemill.render"

_VISIBILITY_TIMEOUT = 6 * 3600
"""Seconds; longer than any shard takes, and the same everywhere: a worker with a shorter one would steal
the live tasks of all others. A stolen or lost wake-up does no harm, the ledger holds the work."""


class _Channel(kombu_redis.Channel):  # type: ignore[misc]
    """Outlives a Redis that goes away.

    kombu 5.7 then may put back or acknowledge a message on a closed connection: an AttributeError, which ends
    the worker and with it the model it has loaded; or a socket more with every outage.
    """

    do_restore = False
    """What was not acknowledged when a connection closes need not come back: the ledger holds the work."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledges while there is a connection; later the message comes again, in hours."""
        if not self.closed:
            super().basic_ack(delivery_tag, multiple)


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = _Channel


def celery_app(url: str) -> Celery:
    """The Celery application of producers, workers and Flower. Connects lazily."""
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
            # Who sends a wake-up does not wait for a Redis that is away. A worker's own connection is tried
            # again by Celery (broker_connection_max_retries).
            "max_retries": 0,
        },
    )
    if url.startswith("rediss://"):
        # kombu's own default takes any certificate. What the URL says (?ssl_cert_reqs=…, ssl_ca_certs=…)
        # comes before this.
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return app


def wake(app: Celery, count: int) -> None:
    """Sends `count` wake-ups; each lets one free task slot look into the ledger.

    Raises LedgerUnavailable when Redis is away or full, LedgerError when it refuses us; an idle worker's
    top-up makes good for it.
    """
    try:
        with app.producer_or_acquire() as producer:
            for _ in range(count):
                app.send_task(RENDER_TASK, producer=producer, retry=False)
    except (OperationalError, redis.exceptions.RedisError, OSError) as error:
        raise _not_sent(error) from None


def _not_sent(error: Exception) -> LedgerError:
    """kombu wraps what redis-py raised, and says "connection" of a wrong password too."""
    cause = error.__cause__ if isinstance(error, OperationalError) and error.__cause__ is not None else error
    if isinstance(cause, redis.exceptions.RedisError):
        ours = as_ours(cause)
    else:
        ours = LedgerUnavailable(f"Redis does not answer ({cause}): is it started?")
    return type(ours)(f"the wake-ups were not sent: {ours}")
