"""Of a message nothing is taken but that it is a wake-up."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.ledger.broker import celery_app, wake
from jobs.ledger.redis_keys import QUEUE
from jobs.ledger.wake_up import RENDER_TASK, wake_up
from producer.embedded_redis import EmbeddedRedis

ID = "0b7c3a52-58a4-4b55-9e34-6c9f5a1c2d3e"
JSON: dict[str, Any] = {"content-type": "application/json", "headers": {"task": RENDER_TASK, "id": ID}}
CALLBACK = {"task": RENDER_TASK, "options": {"queue": "imagemill:worker:cpu0@w2"}}
MORE = [[], {}, {"callbacks": [CALLBACK], "errbacks": [CALLBACK], "chain": [CALLBACK], "chord": CALLBACK}]


def test_what_a_message_carries_besides_is_dropped() -> None:
    message = JSON | {
        "body": base64.b64encode(json.dumps(MORE).encode()).decode(),
        "properties": {
            "delivery_tag": "x", "reply_to": "imagemill:workers",
            "delivery_info": {"exchange": "", "routing_key": "imagemill:worker:cpu0@w2"},
        },
    }  # fmt: skip
    headers = message["headers"] | {
        "eta": "9999-01-01T00:00:00", "expires": "1999-01-01", "shadow": "a\nb", "group": "g",
        "timelimit": [1, 1], "stamps": {"a": "b"}, "compression": "zlib", "ignore_result": False,
    }  # fmt: skip
    taken = wake_up(message | {"headers": headers}, QUEUE)
    assert isinstance(taken, dict)
    plain = wake_up(JSON, QUEUE)
    assert isinstance(plain, dict)
    plain["properties"]["delivery_tag"] = taken["properties"]["delivery_tag"]
    assert taken == plain
    assert taken["headers"]["id"] == ID
    embedded = json.loads(base64.b64decode(taken["body"]))
    assert embedded == [[], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]
    assert taken["properties"]["delivery_info"] == {"exchange": "", "routing_key": QUEUE}


def test_a_wake_up_that_imagemill_sends_is_one(redis_server: EmbeddedRedis) -> None:
    wake(celery_app(redis_server.url), 1)
    with redis.Redis.from_url(redis_server.url) as client:
        sent = json.loads(client.lindex(QUEUE, 0))
    taken = wake_up(sent, QUEUE)
    assert isinstance(taken, dict)
    assert taken["headers"]["id"] == sent["headers"]["id"]
    assert taken.keys() == sent.keys()
    assert taken["headers"].keys() <= sent["headers"].keys()
    assert taken["properties"].keys() <= sent["properties"].keys()


@pytest.mark.parametrize(
    "task",
    ["celery.chord_unlock", "celery.map", "celery.chunks", "celery.group", "celery.accumulate", "os.mknod"],
)
def test_another_task_is_none(task: str) -> None:
    told = wake_up(JSON | {"headers": {"task": task, "id": ID}}, QUEUE)
    assert told == f"its task is '{task}', and not imagemill.render"


@pytest.mark.parametrize("kind", ["application/x-python-serialize", "application/x-yaml", None, ["a"]])
def test_what_is_no_json_is_none(kind: object) -> None:
    assert isinstance(wake_up(JSON | {"content-type": kind}, QUEUE), str)


@pytest.mark.parametrize(
    "id", ["a\n12:00:00 CRITICAL forged \x1b[31m", "x" * 10**6, 7, None, ["a"], {}, ID + "\n"]
)
def test_an_id_that_celery_did_not_make_is_another(id: object) -> None:
    taken = wake_up(JSON | {"headers": {"task": RENDER_TASK, "id": id}}, QUEUE)
    assert isinstance(taken, dict)
    assert len(taken["headers"]["id"]) == 36 and taken["headers"]["id"] != id


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    VALUES | st.fixed_dictionaries({"content-type": VALUES | st.just("application/json"), "headers": VALUES})
)
def test_rubbish_is_told_in_a_line(message: object) -> None:
    told = wake_up(message, QUEUE)
    assert isinstance(told, str)
    assert told.isprintable() and len(told) < 200
