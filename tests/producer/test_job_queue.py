"""The queue wakes as many workers as have something to do, in the Redis that the settings name."""

from __future__ import annotations

import pytest
import redis
from pydantic import SecretStr

from jobs.connection import publish
from jobs.errors import LedgerError, SettingsError
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from producer.job_queue import JobQueue, connect
from tests.reported import Reported


def test_shards_wake_about_two_for_each_slot_and_a_few_where_no_worker_is(ledger: Ledger) -> None:
    sent: list[int] = []
    queue = JobQueue(ledger, sent.append)
    queue.wake_for(1)
    queue.wake_for(40)
    ledger.heartbeat("w1", {"slots": 2})
    ledger.heartbeat("w2", {"slots": 3})
    queue.wake_for(9)
    queue.wake_for(40)
    assert sent == [1, 2, 9, 10]


def test_it_connects_to_the_redis_that_the_settings_name_and_wakes_through_it(
    redis_server: EmbeddedRedis,
) -> None:
    queue = connect(Settings(redis_url=SecretStr(redis_server.url)))
    queue.wake(3)
    queue.wake(1)
    assert queue.ledger.job_ids() == []
    assert redis.Redis.from_url(redis_server.url).llen(redis_keys.QUEUE) == 4


def test_of_several_runs_the_newest_is_taken_and_the_others_are_reported(tmp_path) -> None:
    settings, reported = Settings(), Reported()
    with (
        publish(settings, "redis://:a@127.0.0.1:1/0", tmp_path / "old"),
        publish(settings, "redis://:b@127.0.0.1:2/0", tmp_path / "new"),
    ):
        connect(settings, reported)
    [line] = reported.lines
    assert line.startswith("2 runs are alive; using the newest, ")
    assert str(tmp_path / "old") in line.partition("IMAGEMILL_REDIS_URL")[2]


def test_a_url_that_is_not_safe_and_no_url_at_all_are_errors() -> None:
    with pytest.raises(SettingsError, match="needs a password or TLS"):
        connect(Settings(redis_url=SecretStr("redis://queue.invalid/0")))
    with pytest.raises(LedgerError, match="no Redis to connect to"):
        connect(Settings())
