"""What commands say, and lead to, when Redis may lose keys of jobs, and when it lost or damaged some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest
import redis

from jobs.errors import ImagemillError, LedgerError
from jobs.ledger import redis_keys
from jobs.ledger.ledger import Ledger
from producer import cli
from producer.embedded_redis import EmbeddedRedis
from worker.host.redis_wait import wait_for_redis
from worker.host.stop import Stop

Call = Callable[..., str]


@pytest.fixture
def call(redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `imagemill ARGUMENTS` in this process, and returns what it says, errors of ours too."""
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", redis_server.url)

    def run(*arguments: object) -> str:
        result = click.testing.CliRunner().invoke(cli.command, [str(argument) for argument in arguments])
        if isinstance(result.exception, ImagemillError):
            return result.output + f"error: {result.exception}"
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    return run


@pytest.fixture
def client(redis_server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(redis_server.url)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    given = {"name": "bad", "model": "instant", "output": str(tmp_path / "bad"), "prompts": ["a", "b", "c"]}
    file.write_text(json.dumps(given | {"settings": {"height": 64, "width": 64}}))  # JSON is YAML
    return file


def test_a_redis_that_may_drop_keys_takes_no_job_unless_that_is_allowed(
    call: Call, client: redis.Redis, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    for command in (("submit", manifest), ("recover", manifest), ("retry", "bad-1")):
        said = call(*command)
        assert "error: this Redis may drop keys" in said and "--allow-eviction" in said, said
    assert client.dbsize() == 0
    monkeypatch.setenv("IMAGEMILL_ALLOW_EVICTION", "1")
    assert "bad-1" in call("submit", manifest)


def test_no_worker_starts_on_a_redis_that_may_drop_keys_unless_that_is_allowed(
    redis_server: EmbeddedRedis, client: redis.Redis
) -> None:
    client.config_set("maxmemory-policy", "volatile-lru")
    with pytest.raises(LedgerError, match="maxmemory-policy is volatile-lru"):
        wait_for_redis(redis_server.url, Stop())
    wait_for_redis(redis_server.url, Stop(), allow_eviction=True)


def test_a_policy_that_was_switched_at_run_time_is_shown(
    call: Call, client: redis.Redis, manifest: Path
) -> None:
    call("submit", manifest)
    assert "warning" not in call("status")
    client.config_set("maxmemory-policy", "allkeys-random")
    for of in ((), ("bad-1",)):
        assert "warning: this Redis may drop keys" in call("status", *of)
        assert json.loads(call("status", *of, "--json"))["redis"] == {
            "maxmemory_policy": "allkeys-random",
            "full": False,
        }


def test_a_job_whose_main_key_was_evicted_is_listed_as_such_and_submitted_again(
    call: Call, client: redis.Redis, manifest: Path
) -> None:
    call("submit", manifest)
    client.delete(redis_keys.job("bad-1"))
    assert "bad-1  cannot be read" in call("status")
    [one] = json.loads(call("status", "--json"))["jobs"]
    assert (one["job_id"], one["state"]) == ("bad-1", "unreadable")
    for command in ("status", "watch", "pause", "retry"):
        assert "imagemill cancel bad-1" in call(command, "bad-1"), command
    assert "error" not in call("plan", manifest)
    assert "bad-2" in call("submit", manifest)
    assert "bad-1" not in call("status")
    assert client.keys("imagemill:job:bad-1*") == []


def test_a_job_whose_main_key_was_deleted_is_recovered(
    call: Call, client: redis.Redis, manifest: Path, ledger: Ledger
) -> None:
    call("submit", manifest)
    client.delete(redis_keys.job("bad-1"))
    assert "error" not in call("recover", manifest)
    status = ledger.status("bad-1")
    assert (status.state, status.left, status.total) == ("sealed", 3, 3)


def test_a_job_whose_main_key_was_deleted_does_not_keep_its_output_from_repair(
    call: Call, client: redis.Redis, manifest: Path
) -> None:
    call("submit", manifest)
    client.delete(redis_keys.job("bad-1"))
    assert "is writing there" not in call("doctor", manifest.with_suffix(""), "--repair")


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": "high"},
        {"total": "x"},
        {"state": "dreaming"},
        {"model": None},
        {"incarnation": None},
        {"priority": None, "flagged": None, "held": None, "waiting_since": None, "last_claim": None},
    ],
    ids=str,
)
def test_a_damaged_job_hides_no_other_and_its_output_can_be_had_again(
    call: Call, client: redis.Redis, manifest: Path, tmp_path: Path, fields: dict[str, str | None]
) -> None:
    call("submit", manifest)
    good = tmp_path / "good.yaml"
    good.write_text(manifest.read_text().replace("bad", "good"))
    for field, value in fields.items():
        if value is None:
            client.hdel(redis_keys.job("bad-1"), field)
        else:
            client.hset(redis_keys.job("bad-1"), field, value)
    assert "good-1" in call("submit", good)
    lines = call("status").splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["bad-1", "good-1"]
    unreadable = "cannot be read (another version?)" in lines[1]
    assert unreadable == (None not in fields.values() or len(fields) == 1)
    if unreadable:
        assert "imagemill cancel bad-1" in call("submit", manifest)
        assert "error" not in call("cancel", "bad-1")
    assert "bad-1" in call("submit", manifest) or "bad-2" in call("submit", manifest)
