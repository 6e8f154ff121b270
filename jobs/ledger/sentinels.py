"""The Sentinels of a URL, asked for the master by the ledger and the broker alike."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from jobs.redis_url import RedisAddress

_ASKED = 2.0
"""Seconds that a Sentinel may take to say where the master is; then the next one is asked."""


class NoSuchMaster(redis.exceptions.ResponseError):
    """No Sentinel can ever name the master: none knows its name, or none of the servers is a Sentinel."""


def sentinel_options(address: RedisAddress) -> dict[str, Any]:
    """How the Sentinels themselves are reached, as redis-py's `sentinel_kwargs`, for asyncio too."""
    connecting = address.socket_connect_timeout
    options: dict[str, Any] = {
        "username": address.sentinel_username or None,
        "password": address.sentinel_password or None,
        "socket_timeout": _ASKED,
        "socket_connect_timeout": _ASKED if connecting is None else connecting,
    }
    return options | {"ssl": True, **address.tls} if address.use_tls else options


class Sentinels(Sentinel):
    """redis-py's, with an answer in a line where there is no master, and for many threads.

    redis-py moves the Sentinel that answered to the front of a list in two steps; between them another thread
    could lose one of them for good.
    """

    def __init__(self, places: list[tuple[str, int]], options: dict[str, Any]) -> None:
        """`options`: of `sentinel_options`."""
        # redis-py's default tries a Sentinel that is gone for seconds before it asks the next.
        at_once = options | {"retry": Retry(NoBackoff(), 0)}
        super().__init__(places, sentinel_kwargs=at_once)  # type: ignore[no-untyped-call]
        self._asking = threading.Lock()
        self._places = dict(zip(self.sentinels, (f"{host}:{port}" for host, port in places), strict=True))

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the master. Raises an error of redis-py that says what each Sentinel answered."""
        said: dict[str, Exception | str] = {}
        with self._asking:
            for sentinel in tuple(self.sentinels):
                place = self._places[sentinel]
                try:
                    masters: Any = sentinel.sentinel_masters()
                except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                    said[place] = error
                    continue
                if (state := masters.get(service_name)) is None:
                    said[place] = "knows no master of that name"
                elif not self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                    said[place] = "holds the master to be down"
                else:
                    self.sentinels.remove(sentinel)
                    self.sentinels.insert(0, sentinel)
                    return state["ip"], state["port"]
        raise _no_master(service_name, said)


def _no_master(name: str, said: dict[str, Exception | str]) -> redis.RedisError:
    """What waiting may mend is a MasterNotFoundError, which is a lost connection to redis-py."""
    answers = Counter(str(answer) for answer in said.values())
    text = f"no Sentinel names a master {name!r}: " + "; ".join(
        f"{', '.join(place for place, one in said.items() if str(one) == answer)}: {answer}"
        for answer in answers
    )
    answered = [one for one in said.values() if not _is_away(one)]
    if answered and all(isinstance(one, redis.exceptions.AuthenticationError) for one in answered):
        return redis.exceptions.AuthenticationError(f"{text}; the Sentinels' own is sentinel_password=…")
    if answered and all(one == "knows no master of that name" for one in answered):
        return NoSuchMaster(f"{text}: correct master_name in IMAGEMILL_REDIS_URL")
    if answered and all(isinstance(one, redis.ResponseError) for one in answered):
        return NoSuchMaster(f"{text}: name Sentinels in IMAGEMILL_REDIS_URL, or write redis:// for a Redis")
    return MasterNotFoundError(text)


def _is_away(answer: Exception | str) -> bool:
    lost = (redis.ConnectionError, redis.TimeoutError)
    return isinstance(answer, lost) and not isinstance(answer, redis.exceptions.AuthenticationError)
