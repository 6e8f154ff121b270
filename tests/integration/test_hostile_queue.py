"""What `producer` may write into the queue makes no worker write, run or lose anything."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.ledger.broker import RENDER_TASK
from jobs.ledger.job import JobStatus
from tests.farm import Farm
from tests.guarded_redis import Server
from tests.waiting import WaitUntil

Finish = Callable[..., JobStatus]
VICTIM = "imagemill:worker:cpu0@w2"
"""A key that `producer` may not write: the heartbeat of a worker."""


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


CALLBACK = {
    "task": RENDER_TASK, "args": [], "kwargs": {}, "options": {"queue": VICTIM}, "subtask_type": None,
    "immutable": True,
}  # fmt: skip
FORGED = "12:00:00 CRITICAL forged"
MESSAGES: list[dict[str, Any]] = [
    message(embed={"callbacks": [CALLBACK], "errbacks": [CALLBACK], "chain": [CALLBACK], "chord": CALLBACK}),
    message(embed={"callbacks": [{"task": "celery.group", "options": {"queue": VICTIM}}]}),
    message(headers={"eta": "9999-01-01T00:00:00", "id": f"a\n{FORGED} \x1b[31m"}),
    message(headers={"id": f"b\n{FORGED}", "shadow": f"c\n{FORGED}", "argsrepr": f"d\n{FORGED}"}),
    message(headers={"timelimit": ["x"], "retries": "x", "expires": 7, "stamps": 7, "compression": "zlib"}),
    message(delivery_info={"exchange": "", "routing_key": VICTIM}, delivery_tag=["x"], reply_to=VICTIM),
    message("celery.chord_unlock", headers={"retries": 0}),
    *(message(f"celery.{name}") for name in ("map", "chunks", "group", "accumulate", "backend_cleanup")),
    message(f"x\n{FORGED}"),
    {},
    {"body": 1, "headers": [], "properties": {}},
    message(headers={"task": [1]}),
    message() | {"headers": None, "properties": None},
    message() | {"body": "no base64", "content-encoding": ["x"]},
]
RUBBISH = [
    b"", b"null", b"[]", b"1", b"[" * 200_000, b"\xff",
    b'{"__type__": "uuid", "__value__": "x"}', b"1" * 5000,
    b'{"__type__": "bytes", "__value__": 7}', b'{"__type__": "date", "__value__": {}}',
]  # fmt: skip


def test_whatever_lies_in_the_queue_a_worker_takes_wake_ups_and_goes_on(
    tmp_path: Path,
    guarded: Server,
    wait_until: WaitUntil,
) -> None:
    farm = Farm(tmp_path, guarded)
    producer = guarded.client("producer")
    try:
        for one in MESSAGES:
            producer.lpush("imagemill", json.dumps(one))
        producer.lpush("imagemill", *RUBBISH)
        process = farm.start_worker(redis_url=guarded.url_of("worker"))
        with guarded.client("admin") as admin:
            wait_until(lambda: admin.llen("imagemill") == 0, "the queue is empty")
            done = farm.command("submit", farm.manifest(16), "--wait", redis_url=guarded.url_of("producer"))
            assert done.returncode == 0, done.stderr + farm.log("w1")
            farm.check_exact("cats-1", 16)
            assert process.poll() is None
            assert admin.exists(VICTIM) == 0
            wait_until(lambda: admin.hlen("unacked") == 0, "nothing is taken and kept")
            assert [key for key in admin.keys("*") if b"victim" in key or b"w2" in key] == []
        log = farm.log("w1")
        assert not [line for line in log.splitlines() if line.startswith(FORGED)]
        assert "\x1b" not in log
        assert "Traceback" not in log, log
        assert log.count("a message in the queue was dropped") >= 20
        farm.start_worker("w2", redis_url=guarded.url_of("worker"))
        with guarded.client("admin") as admin:
            wait_until(lambda: admin.type(VICTIM) == b"hash", "the other worker tells that it is there")
        done = farm.command("status", redis_url=guarded.url_of("producer"))
        assert done.returncode == 0, done.stderr
        assert "2 workers" in done.stdout
    finally:
        producer.close()
        farm.stop()
