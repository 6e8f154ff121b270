"""Faults of a worker's connections to Redis: nobody forwards them any more, or they are reset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.field import Field
from tests.half_open import HalfOpenWay

CLAIMED = 60.0
"""Seconds until the worker has claimed a shard, whatever became of its connections."""
_SOON = "?socket_timeout=1&health_check_interval=1"
"""A worker that waits no longer for an answer: the fault is over in seconds."""


@contextmanager
def _by_a_way(field: Field, name: str) -> Iterator[HalfOpenWay]:
    """A worker that is started again to reach Redis by this way, while the job is paused."""
    with (
        HalfOpenWay(field.server.url) as way,
        field.restarted(name, REDIS_URL=f"{way.url}{_SOON}"),
    ):
        yield way


def forgotten(field: Field, idle: bool) -> None:
    """A worker's connections are half-open, as after a firewall's restart: it must claim all the same.

    `idle`: it has nothing to do then; otherwise it renders. The others are frozen meanwhile: it must claim.
    """
    name = field.any_name()
    with _by_a_way(field, name) as way, ExitStack() as frozen:
        if not idle:
            field.resume()
            field.wait(lambda: field.attempts(name), f"{name} holds something")
        for other in field.names:
            if other != name:
                frozen.enter_context(field.frozen(field.pid_of(other)))
        field.hit()
        assert way.forget() > 0
        before = field.attempts(name)
        if idle:
            field.resume()
        field.wait(lambda: field.attempts(name).items() - before.items(), f"{name} claims", CLAIMED)


def cut(field: Field) -> None:
    """A worker's connections are reset while it renders."""
    name = field.any_name()
    with _by_a_way(field, name) as way:
        field.resume()
        field.wait(lambda: field.attempts(name), f"{name} holds something")
        field.hit()
        assert way.cut() > 0
        before = field.attempts(name)
        field.wait(lambda: field.attempts(name).items() - before.items(), f"{name} claims", CLAIMED)
