"""What somebody who may write into the queue could put there, beside wake-ups."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from jobs.ledger.broker import RENDER_TASK

FORGED = "12:00:00 CRITICAL forged"
"""A line that some of them try to write into a log."""
RUBBISH = [
    b"", b"null", b"[]", b"1", b"[" * 200_000, b"\xff",
    b'{"__type__": "uuid", "__value__": "x"}', b"1" * 5000,
    b'{"__type__": "bytes", "__value__": 7}', b'{"__type__": "date", "__value__": {}}',
]  # fmt: skip


def message(
    task: str = RENDER_TASK, embed: object = None, headers: object = None, **properties: object
) -> dict[str, Any]:
    """A message as Celery writes it, with what is given besides."""
    called = str(uuid.uuid4())
    body = json.dumps([[], {}, {} if embed is None else embed]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": task, "id": called, "root_id": called}
        | (headers if isinstance(headers, dict) else {}),
        "properties": {
            "correlation_id": called, "delivery_mode": 2, "delivery_tag": str(uuid.uuid4()), "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "imagemill"}, "body_encoding": "base64",
        } | properties,
    }  # fmt: skip


def hostile_messages(victim: str) -> dict[str, list[bytes]]:
    """Kind -> messages. If a worker did what they say, it would write to the key `victim`."""
    callback = {
        "task": RENDER_TASK, "args": [], "kwargs": {}, "options": {"queue": victim}, "subtask_type": None,
        "immutable": True,
    }  # fmt: skip
    embedded = {"callbacks": [callback], "errbacks": [callback], "chain": [callback], "chord": callback}
    kinds: dict[str, list[dict[str, Any]]] = {
        "callbacks": [
            message(embed=embedded),
            message(embed={"callbacks": [{"task": "celery.group", "options": {"queue": victim}}]}),
            message(headers=embedded),
        ],
        "headers": [
            message(headers={"eta": "9999-01-01T00:00:00", "id": f"a\n{FORGED} \x1b[31m"}),
            message(headers={"id": f"b\n{FORGED}", "shadow": f"c\n{FORGED}", "argsrepr": f"d\n{FORGED}"}),
            message(
                headers={"timelimit": ["x"], "retries": "x", "expires": 7, "stamps": 7, "compression": "zlib"}
            ),
            message(
                delivery_info={"exchange": "", "routing_key": victim}, delivery_tag=["x"], reply_to=victim
            ),
        ],
        "tasks": [
            message("celery.chord_unlock", headers={"retries": 0}),
            *(message(f"celery.{name}") for name in ("map", "chunks", "group", "accumulate")),
            message("celery.backend_cleanup"),
            message(f"x\n{FORGED}"),
        ],
        "envelopes": [
            {},
            {"body": 1, "headers": [], "properties": {}},
            message(headers={"task": [1]}),
            message() | {"headers": None, "properties": None},
            message() | {"body": "no base64", "content-encoding": ["x"]},
        ],
    }
    return {kind: [json.dumps(one).encode() for one in group] for kind, group in kinds.items()} | {
        "rubbish": RUBBISH
    }
