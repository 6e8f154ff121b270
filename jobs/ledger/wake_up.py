"""What is taken of a message in the queue: that it is a wake-up, and the id that Flower shows.

Everyone who may submit may write any message. Celery would obey what it carries besides: callbacks, errbacks,
chains and chords are sent on by the worker, to any key of Redis; an `eta` is held in memory; a routing key is
where a message is put back to. So the message that Celery gets is another one, made by imagemill.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any, Final

from jobs.wording import shortened

RENDER_TASK: Final = "imagemill.render"
_JSON: Final = "application/json"
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NOTHING_MORE: Final = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def wake_up(message: object, queue: str) -> dict[str, Any] | str:
    """The message of a wake-up in `queue` as kombu takes it, or why it is none: a line for the log."""
    if not isinstance(message, dict):
        return f"is no object, but {shortened(repr(message))}"
    headers, kind = message.get("headers"), message.get("content-type")
    if kind != _JSON:
        return f"its contents are {shortened(str(kind))}, and not {_JSON}"
    if not isinstance(headers, dict) or headers.get("task") != RENDER_TASK:
        named = headers.get("task") if isinstance(headers, dict) else None
        return f"its task is {shortened(repr(named))}, and not {RENDER_TASK}"
    given = headers.get("id")
    called = given if isinstance(given, str) and _ID.fullmatch(given) else str(uuid.uuid4())
    return {
        "body": base64.b64encode(_NOTHING_MORE).decode(),
        "content-type": _JSON,
        "content-encoding": "utf-8",
        "headers": {
            "lang": "py",
            "task": RENDER_TASK,
            "id": called,
            "root_id": called,
            "parent_id": None,
            "retries": 0,
            "argsrepr": "()",
            "kwargsrepr": "{}",
        },
        "properties": {
            "correlation_id": called,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
