"""Celery over Redis, configured so that nothing depends on a message: each is only a wake-up.

The settings come from measurements with Celery and kombu 5.7 on Redis 7; comments give the reasons.
"""

from __future__ import annotations

import logging
import ssl
from traceback import walk_tb
from typing import Any
from urllib.parse import quote, urlsplit

import redis.exceptions
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.sentinel import SentinelConnectionPool

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.redis_errors import as_ledger_error
from jobs.ledger.redis_keys import QUEUE
from jobs.ledger.sentinels import Sentinels, sentinel_options
from jobs.ledger.wake_up import RENDER_TASK, wake_up
from jobs.redis_url import RedisAddress, parse_redis_url
from jobs.wording import shortened

log = logging.getLogger(__name__)
_JSON = "kombu.utils.json"

_VISIBILITY_TIMEOUT = 6 * 3600
"""Seconds; longer than any shard takes, and the same in every worker: one with a shorter timeout would steal
the running tasks of all others. A stolen or lost wake-up does no harm: the ledger holds the work."""


class _Surviving:
    """What both channels below have: they survive an outage of Redis, and take wake-ups alone.

    After one, kombu 5.7 may restore or acknowledge a message on a closed connection. That raises an
    AttributeError, which ends the worker and unloads its model, or leaks a socket with every outage.
    """

    do_restore = False
    """Unacknowledged messages need not come back when a connection closes: the ledger holds the work."""

    def basic_consume(self, queue: str, *arguments: Any, **options: Any) -> Any:
        """Consumes a queue; of that of wake-ups nothing reaches Celery that a message carries besides."""
        tag = super().basic_consume(queue, *arguments, **options)  # type: ignore[misc]
        if queue == QUEUE:
            callbacks = self.connection._callbacks  # type: ignore[attr-defined]
            take = callbacks[queue]

            def take_wake_up(message: object) -> Any:
                known = wake_up(message, queue)
                if isinstance(known, str):
                    log.warning("a message in the queue was dropped: %s", known)
                    return None
                return take(known)

            callbacks[queue] = take_wake_up
        return tag

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except Exception as error:
            # What kombu makes of JSON's {"__type__": …} raises nearly anything, which would end the worker.
            if not any(frame.f_globals.get("__name__") == _JSON for frame, _ in walk_tb(error.__traceback__)):
                raise
            log.warning("a message in the queue was dropped: it is no JSON (%s)", shortened(str(error)))
            return True

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledges if there is a connection; otherwise the message comes again in hours."""
        if not self.closed:  # type: ignore[attr-defined]
            super().basic_ack(delivery_tag, multiple)  # type: ignore[misc]


class _Channel(_Surviving, kombu_redis.Channel):  # type: ignore[misc]
    """Of one server."""


class _SentinelChannel(_Surviving, kombu_redis.SentinelChannel):  # type: ignore[misc]
    """Of the master that Sentinels name."""

    sentinel_kwargs: dict[str, Any]
    master_name: str

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        """As kombu's, with Sentinels of ours: redis-py's say in a page that there is no master."""
        options = self._connparams(asynchronous)
        del options["host"], options["port"]
        urls = self.connection.client.alt or [self.connection.client.as_uri()]
        places = [(parts.hostname or "", parts.port or 26379) for parts in map(urlsplit, urls)]
        manager = Sentinels(places, self.sentinel_kwargs)
        # kombu closes what it finds here.
        if asynchronous:
            self._async_sentinel_manager = manager
        else:
            self._sentinel_manager = manager
        return SentinelConnectionPool(self.master_name, manager, **options)  # type: ignore[no-untyped-call]


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with the channel above."""

    Channel = _Channel


class SentinelTransport(kombu_redis.SentinelTransport):  # type: ignore[misc]
    """kombu's transport by Sentinels with the channel above."""

    Channel = _SentinelChannel


def celery_app(url: str) -> Celery:
    """The Celery application of producers, workers and Flower. Connects on first use.

    Raises ValueError for a URL that is wrong.
    """
    address = parse_redis_url(url)
    # kombu looks a transport up by the scheme of its URL.
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "jobs.ledger.broker:Transport"))
    TRANSPORT_ALIASES["sentinel"] = "jobs.ledger.broker:SentinelTransport"
    app = Celery("imagemill", broker=_broker_url(address))
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
            # With the interval below, a consumer whose connections nobody forwards any more takes wake-ups
            # again within half a minute. kombu looks once an interval whether an answer is overdue by one;
            # then each further connection in its pool costs a timeout.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # A sender of wake-ups does not wait for a Redis that is away. Celery itself retries a worker's
            # connection (broker_connection_max_retries).
            "max_retries": 0,
        }
        | _options(address),
    )
    if address.kind == "rediss" or address.use_tls:
        # kombu's default accepts any certificate. The URL (?ssl_cert_reqs=…, ssl_ca_certs=…) overrides this.
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **address.tls}
    return app


def _broker_url(address: RedisAddress) -> str:
    """The address as kombu and Flower write it, without options: they get those by name."""
    user, password = quote(address.username, safe=""), quote(address.password, safe="")
    credentials = f"{user}:{password}@" if user or password else ""
    if address.kind == "unix":
        return f"redis+socket://{credentials}{quote(address.path)}?virtual_host={address.database}"
    # An IPv6 address in brackets.
    places = [f"[{host}]:{port}" if ":" in host else f"{quote(host)}:{port}" for host, port in address.hosts]
    return ";".join(f"{address.kind}://{credentials}{place}/{address.database}" for place in places)


def _options(address: RedisAddress) -> dict[str, Any]:
    """The transport's options that the URL decides."""
    names = ("socket_timeout", "socket_connect_timeout", "health_check_interval")
    options = {name: value for name in names if (value := getattr(address, name)) is not None}
    if address.kind == "sentinel":
        options |= {"master_name": address.master_name, "sentinel_kwargs": sentinel_options(address)}
    return options


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
