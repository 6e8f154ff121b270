"""The embedded Redis is private, durable while wanted, and gone with the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.errors import LedgerError
from producer import embedded_redis
from producer.embedded_redis import EmbeddedRedis, bundled_binary, find_binary
from tests.processes import runs

ROOT = Path(__file__).parents[2]
SYSTEMS = find_binary()
BUNDLED = bundled_binary()
BINARIES = pytest.mark.parametrize("binary", [SYSTEMS, BUNDLED], ids=["system's", "bundled"])


def _client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def test_a_server_on_path_goes_before_the_bundled_one() -> None:
    assert BUNDLED is not None and BUNDLED.is_file()
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    assert (BUNDLED if on_path is None else Path(on_path)) == SYSTEMS


@BINARIES
def test_it_is_configured_for_a_ledger(binary: Path) -> None:
    with EmbeddedRedis(binary=binary) as server, _client(server) as client:
        assert client.ping()
        config = client.config_get("*")
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "everysec"
        assert config["maxmemory-policy"] == "noeviction"
        assert config["protected-mode"] == "yes"
        assert config["bind"] == "127.0.0.1"
        assert config["save"] == ""
        assert client.info("server")["process_id"] == server.pid
        assert server.alive


@BINARIES
def test_its_password_is_required_and_stands_in_no_command_line(binary: Path) -> None:
    with EmbeddedRedis(binary=binary) as server:
        at = urlsplit(server.url)
        assert at.hostname == "127.0.0.1"
        assert at.password is not None
        assert len(at.password) >= 32
        with (
            redis.Redis(port=at.port or 0, retry=Retry(NoBackoff(), 0)) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()
        shell = psutil.Process(server.pid).parent()
        assert shell is not None
        for process in [shell, *shell.children(recursive=True)]:
            assert at.password not in " ".join(process.cmdline())
            assert at.password not in str(process.environ())
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((server.folder / "redis.conf").stat().st_mode) == 0o600


@BINARIES
def test_stopping_ends_it_in_good_order_and_removes_its_folder(binary: Path) -> None:
    with EmbeddedRedis(binary=binary) as server:
        folder, process = server.folder, psutil.Process(server.pid)
        assert folder.is_dir()
    assert not runs(process)
    assert not folder.exists()
    assert not server.alive
    server.stop()


@BINARIES
def test_a_given_folder_is_kept_and_its_data_served_again(binary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a 'folder\" of \\ mine"
    with EmbeddedRedis(folder, binary=binary) as first, _client(first) as client:
        client.set("key", "value")
    with EmbeddedRedis(folder, binary=binary) as second, _client(second) as client:
        assert client.get("key") == "value"
        assert urlsplit(second.url).password != urlsplit(first.url).password
    assert (folder / "appendonlydir").is_dir()


def test_keep_leaves_the_folder_that_it_made() -> None:
    with EmbeddedRedis(keep=True) as server:
        folder = server.folder
    try:
        assert (folder / "appendonlydir").is_dir()
        assert server.folder == folder
    finally:
        server.keep = False
        server.stop()
    assert not folder.exists()


@BINARIES
def test_killing_its_parent_with_9_leaves_no_process_and_no_folder(
    binary: Path, wait_until: Callable[..., None]
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from producer.embedded_redis import EmbeddedRedis\n"
        "with EmbeddedRedis(binary=Path(sys.argv[1])) as s: print(s.folder, flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(binary)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        with parent.stdout as lines:
            folder = Path(lines.readline().strip())
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 3
        assert folder.is_dir()
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not [p for p in family if runs(p)], "the end of the server and its shell")
    wait_until(lambda: not folder.exists(), "the removal of its folder")


def test_one_that_does_not_answer_any_more_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "STOP_SECONDS", 0.5)
    with EmbeddedRedis() as server:
        frozen = psutil.Process(server.pid)
        frozen.suspend()
    assert not runs(frozen)


def test_the_death_of_the_server_is_seen(wait_until: Callable[..., None]) -> None:
    with EmbeddedRedis() as server:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive, "the server's death")


def test_a_port_that_was_taken_meanwhile_is_tried_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis() as first:
        taken = urlsplit(first.url).port
        free = embedded_redis.free_port()
        ports = iter([taken, free])
        monkeypatch.setattr(embedded_redis, "free_port", lambda: next(ports))
        with EmbeddedRedis() as second:
            assert urlsplit(second.url).port == free


def test_a_server_that_fails_shows_its_last_lines_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken = tmp_path / "broken-server"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(LedgerError, match=r"exit status 3\n    the disk is on fire\n.*IMAGEMILL_REDIS_URL"):
        EmbeddedRedis(binary=broken).start()
    assert list(tmp_path.glob("imagemill-redis-*")) == []


def test_a_server_that_never_answers_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    silent = tmp_path / "silent-server"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o755)
    server = EmbeddedRedis(binary=silent, start_timeout=0.3)
    with pytest.raises(LedgerError, match=r"no answer within 0\.3 s"):
        server.start()
    assert not server.alive


def test_a_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(LedgerError, match="chmod 700"):
        EmbeddedRedis(tmp_path / "open").start()


def test_a_folder_of_another_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(LedgerError, match="only you may have access"):
        EmbeddedRedis(tmp_path / "theirs").start()


def test_without_a_server_on_path_the_bundled_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == BUNDLED
    (tmp_path / "valkey-server").write_text("")
    (tmp_path / "valkey-server").chmod(0o755)
    assert find_binary() == tmp_path / "valkey-server"


def test_without_any_server_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "bundled_binary", lambda: None)
    with pytest.raises(LedgerError, match="apt install redis-server"):
        EmbeddedRedis().start()
