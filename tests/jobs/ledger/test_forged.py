"""A spec or a shard of a job that nobody submitted takes no more memory than one that somebody did."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import redis
import zstandard

from jobs.errors import BrokenShard, JobUnreadable
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import decode_shard, read_base
from jobs.request import ImageRequest
from producer.embedded_redis import EmbeddedRedis

BASE = ImageRequest(prompt="", seed=0, model="instant", revision="instant-1", height=64, width=64)
BOUND = 100 << 20
"""What a shard may unpack to."""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"height": 10**9}, "height = 1000000000"),
        ({"height": 65}, "height = 65"),
        ({"width": -8}, "width = -8"),
        ({"width": 1e999}, "width = inf"),
        ({"num_inference_steps": 10**6}, "num_inference_steps = 1000000"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan"),
        ({"prompt": 7}, "prompt = 7"),
        ({"seed": -1}, "seed = -1"),
        ({"scheduler": "x\n12:00 forged"}, "scheduler = 'x"),
        ({"loras": "[" * 100_000}, "loras = "),
        ({"nonsense": 1}, "there is no setting nonsense"),
        ({"model": None}, "model = None"),
    ],
)
def test_a_base_is_held_to_what_lines_are_held_to(
    change: dict[str, Any],
    named: str,
    submit_job: Callable[..., str],
    ledger: Ledger,
    redis_server: EmbeddedRedis,
) -> None:
    job_id = submit_job()
    assert read_base(ledger.spec(job_id).base) == BASE
    key = redis_keys.job(job_id, "spec")
    with redis.Redis.from_url(redis_server.url) as client:
        spec = json.loads(client.get(key))
        client.set(key, json.dumps(spec | {"base": spec["base"] | change}))
    with pytest.raises(JobUnreadable) as caught:
        ledger.spec(job_id)
    assert named in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 900


def test_a_base_that_lacks_a_setting_is_none() -> None:
    with pytest.raises(ValueError, match="base: prompt is missing"):
        read_base({})


def _blob(text: bytes) -> bytes:
    return zstandard.compress(text)


@pytest.mark.parametrize(
    "rows",
    [
        b"{}," * 33_000_000, b'"ab",' * 20_000_000, b'{"columns":{' + b'"ab":1,' * 14_000_000 + b'"x":1}},',
        b"{}," * 20_000, b"1.5," * 1_000_000, b"9" * (99 << 20) + b",", b" " * (101 << 20),
    ],
    ids=["objects", "texts", "keys", "20,000 lines", "numbers", "a number", "blanks"],
)  # fmt: skip
def test_a_blob_takes_ten_times_what_it_may_unpack_to_at_most_and_is_refused(rows: bytes) -> None:
    blob = _blob(b'{"v":1,"indices":0,"rows":[' + rows + b"{}]}")
    assert len(blob) < 100_000
    del rows
    tracemalloc.start()
    with pytest.raises(BrokenShard) as caught:
        decode_shard(blob, BASE, "cats")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
    assert most <= 10 * BOUND, f"{most:,} bytes"
