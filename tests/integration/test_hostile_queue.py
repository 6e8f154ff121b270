"""What `producer` may write into the queue makes no worker write, run or lose anything."""

from __future__ import annotations

from pathlib import Path

from tests.farm import Farm
from tests.guarded_redis import Server
from tests.hostile_messages import FORGED, hostile_messages
from tests.waiting import WaitUntil

VICTIM = "imagemill:worker:cpu0@w2"
"""A key that `producer` may not write: the heartbeat of a worker."""


def test_whatever_lies_in_the_queue_a_worker_takes_wake_ups_and_goes_on(
    tmp_path: Path,
    guarded: Server,
    wait_until: WaitUntil,
) -> None:
    farm = Farm(tmp_path, guarded)
    producer = guarded.client("producer")
    try:
        for kind in hostile_messages(VICTIM).values():
            producer.lpush("imagemill", *kind)
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
