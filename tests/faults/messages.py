"""Faults of the queue: wake-ups that are lost, doubled, of other versions, or written by somebody hostile."""

from __future__ import annotations

import base64
import json
import os
import time

from jobs.ledger.broker import RENDER_TASK, celery_app, wake
from jobs.ledger.redis_keys import QUEUE
from tests.faults.field import Field
from tests.hostile_messages import hostile_messages

_VICTIM = "imagemill:victim"
"""A key that a worker would write to if it did what a forged message says."""
HOSTILE = tuple(hostile_messages(_VICTIM))
"""The kinds of what somebody hostile could write."""


def doubled(field: Field) -> None:
    field.hit()
    wake(celery_app(field.server.url), 20)


def dropped(field: Field) -> None:
    """Every wake-up that waits is lost, for a second."""
    field.hit()
    until = time.monotonic() + 1
    while time.monotonic() < until:
        field.client.delete(QUEUE)


def one_dropped(field: Field) -> None:
    """Of more than the workers can take at once, so that one is there to be lost."""
    app = celery_app(field.server.url)
    field.wait(lambda: wake(app, 20) or field.client.lpop(QUEUE), "a wake-up is lost")  # type: ignore[func-returns-value]
    field.hit()


def unknown_task(field: Field) -> None:
    field.hit()
    celery_app(field.server.url).send_task("imagemill.nobody_knows", queue=QUEUE)


def other_arguments(field: Field) -> None:
    """A wake-up of a version that named its work in the message."""
    field.hit()
    celery_app(field.server.url).send_task(RENDER_TASK, args=["cats-1", 3], kwargs={"epoch": 2}, queue=QUEUE)


def old_protocol(field: Field) -> None:
    """An envelope of Celery 3, and one whose body is nothing that was ever sent."""
    field.hit()
    old = json.dumps({"task": RENDER_TASK, "id": "old", "args": [], "kwargs": {}}).encode()
    for body in (old, b'{"shard": 3}', b"\x00\xff"):
        old_message = {
            "body": base64.b64encode(body).decode(), "content-type": "application/json",
            "content-encoding": "utf-8", "headers": {},
            "properties": {
                "delivery_tag": os.urandom(8).hex(), "body_encoding": "base64",
                "delivery_info": {"exchange": "", "routing_key": QUEUE}, "priority": 0,
            },
        }  # fmt: skip
        _push(field, json.dumps(old_message).encode())


def garbage(field: Field) -> None:
    """A message that is no JSON: it is dropped, and ends no process."""
    field.hit()
    pids = {field.pid_of(name) for name in field.names}
    _push(field, b"this is no message")
    field.wait(lambda: pids == {field.pid(name) for name in field.names}, "the processes go on")


def hostile(field: Field, what: str) -> None:
    """Messages that somebody hostile wrote: no process ends, and nothing is written that they name."""
    field.hit()
    pids = {name: field.pid_of(name) for name in field.names}
    messages = hostile_messages(_VICTIM)[what]
    field.client.rpush(QUEUE, *messages)
    lying = [*messages]

    def all_taken() -> bool:
        lying[:] = [one for one in lying if field.client.lpos(QUEUE, one) is not None]  # type: ignore[arg-type]
        return not lying

    field.wait(all_taken, f"{what} are taken", progress=lambda: len(lying))
    field.goes_on()
    assert {name: field.pid(name) for name in field.names} == pids, "a process ended"
    assert not field.client.exists(_VICTIM), "a worker did what a message said"


def _push(field: Field, message: bytes) -> None:
    """Puts a message where the next one is taken from, and waits until it was."""
    field.client.rpush(QUEUE, message)
    field.wait(lambda: field.client.lpos(QUEUE, message.decode()) is None, f"{message!r} is taken")
