"""A process finds the Redis it was told of, or that of a live run, and no other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.connection import live_connections, publish, redis_url, runtime_folder, safe_text, safe_url
from jobs.errors import LedgerError, SettingsError
from jobs.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
RUN = """
import sys, time
from jobs.connection import publish
from jobs.settings import load_settings
with publish(load_settings(), sys.argv[1], "out"):
    print("published", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def test_a_given_url_wins_over_a_live_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "redis://:secret@host:1/0")
    with publish(load_settings(), "redis://:other@127.0.0.1:2/0", "out"):
        assert redis_url(load_settings()) == "redis://:secret@host:1/0"


def test_a_url_that_is_not_redis_is_refused_without_showing_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", "http://:secret@host:1/0")
    with pytest.raises(SettingsError, match=r"http://\*\*\*@host:1/0: must look like redis://") as refused:
        redis_url(load_settings())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "trouble"),
    [
        ("redis://queue:6379/0", "needs a password or TLS"),
        ("redis://10.0.0.7/0", "needs a password or TLS"),
        ("redis://ann:@queue/0", "needs a password or TLS"),
        ("redis://[fe80::1]/0", "needs a password or TLS"),
        ("redis://127.0.0.1.evil.example/0", "needs a password or TLS"),
        ("redis://localhost@queue/0", "needs a password or TLS"),
        ("valkey://queue/0", "needs a password or TLS"),
        ("sentinel://queue/0?master_name=m", "Sentinels need one too"),
        ("sentinel://:secret@queue/0?master_name=m", "Sentinels need one too"),
        (
            "sentinel://127.0.0.1;sentinel://queue/0?master_name=m&sentinel_password=secret",
            "needs a password",
        ),
        ("rediss://:secret@queue/0?ssl_cert_reqs=none", "ssl_cert_reqs=none any server passes"),
        ("valkeys://queue/0?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=none any server"),
        ("sentinel://queue/0?master_name=m&ssl_cert_reqs=none", "ssl_cert_reqs=none any server"),
        ("rediss://queue/0?ssl_cert_reqs=optional", "ssl_cert_reqs=optional any server"),
        ("rediss://queue/0?ssl_check_hostname=false", "ssl_check_hostname=false any server"),
    ],
)
def test_a_redis_that_strangers_could_use_or_play_is_refused_unless_insecure(
    monkeypatch: pytest.MonkeyPatch, url: str, trouble: str
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", url)
    with pytest.raises(SettingsError) as refused:
        redis_url(load_settings())
    assert str(refused.value).startswith(f"IMAGEMILL_REDIS_URL = {safe_url(url)}: ")
    assert trouble in str(refused.value)
    assert "--insecure" in str(refused.value)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("IMAGEMILL_INSECURE", "1")
    assert redis_url(load_settings()) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/0",
        "redis://127.8.9.10:6379/0",
        "redis://[::1]:6379/0",
        "redis:///0",
        "rediss://localhost/0?ssl_cert_reqs=none",
        "redis://:secret@queue/0",
        "redis://ann:secret@queue/0",
        "rediss://queue/0",
        "rediss://:secret@queue/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=true",
        "valkey://:secret@queue/0",
        "valkeys://queue/0",
        "unix:///run/redis.sock",
        "redis+socket:///run/redis.sock?virtual_host=2",
        "sentinel://127.0.0.1:26379;sentinel://[::1]/0?master_name=m",
        "sentinel://:secret@queue;sentinel://other/0?master_name=m&sentinel_password=secret",
        "sentinel://queue/0?master_name=m&ssl=true",
    ],
)
def test_a_redis_on_this_machine_or_with_a_password_or_tls_is_used(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", url)
    assert redis_url(load_settings()) == url


@pytest.mark.parametrize(
    ("url", "trouble"),
    [
        ("redis://localhost/0;redis://:x@queue/0", "name one"),
        ("redis://[::1/0", "is no URL"),
        (
            "redis://localhost/0?decode_responses=true",
            "there are health_check_interval, socket_connect_timeout",
        ),
    ],
)
def test_a_url_that_the_ledger_and_the_broker_cannot_both_use_is_refused_even_when_insecure(
    monkeypatch: pytest.MonkeyPatch, url: str, trouble: str
) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", url)
    monkeypatch.setenv("IMAGEMILL_INSECURE", "1")
    with pytest.raises(SettingsError, match=trouble):
        redis_url(load_settings())


def test_a_published_connection_is_found_until_its_block_ends(settings: Settings) -> None:
    with publish(settings, "redis://:secret@127.0.0.1:7/0", "out/a") as file:
        assert redis_url(settings) == "redis://:secret@127.0.0.1:7/0"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"run-{os.getpid()}-" in file.name
        found = json.loads(file.read_text())
        assert (found["pid"], found["output"]) == (os.getpid(), "out/a")
    assert list(file.parent.iterdir()) == []
    with pytest.raises(LedgerError, match="imagemill run FILE") as nothing:
        redis_url(settings)
    assert "IMAGEMILL_REDIS_URL" in str(nothing.value)
    assert nothing.value.exit_code == 2


def test_of_several_live_runs_the_newest_is_used_and_the_choice_is_said(settings: Settings) -> None:
    said: list[str] = []
    with publish(settings, "redis://:a@127.0.0.1:1/0", "out/old") as old:
        assert redis_url(settings, said.append) == "redis://:a@127.0.0.1:1/0"
        assert said == []
        with publish(settings, "redis://:b@127.0.0.1:2/0", "out/new"):
            assert redis_url(settings, said.append) == "redis://:b@127.0.0.1:2/0"
    assert len(said) == 1
    assert f"using the newest, pid {os.getpid()} (out/new)" in said[0]
    assert str(old) in said[0]
    assert "127.0.0.1" not in said[0]


def test_the_file_of_a_run_killed_with_9_is_ignored_and_removed(settings: Settings) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, "redis://127.0.0.1:3/0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    try:
        assert run.stdout is not None
        with run.stdout as lines:
            assert lines.readline() == b"published\n"
        assert [(c.url, c.pid) for c in live_connections(settings)] == [("redis://127.0.0.1:3/0", run.pid)]
    finally:
        run.kill()
        run.wait()
    assert len(list(runtime_folder(settings).glob("run-*.json"))) == 1
    assert live_connections(settings) == []
    assert list(runtime_folder(settings).iterdir()) == []


def test_a_file_that_others_may_read_is_not_believed(settings: Settings) -> None:
    with publish(settings, "redis://127.0.0.1:4/0", "out") as file:
        file.chmod(0o644)
        assert live_connections(settings) == []
        file.chmod(0o600)
        assert len(live_connections(settings)) == 1


def test_a_file_of_another_users_is_not_believed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with publish(settings, "redis://127.0.0.1:4/0", "out"):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert live_connections(settings) == []


def test_a_link_to_a_file_of_this_users_is_not_believed(settings: Settings, tmp_path: Path) -> None:
    with publish(settings, "redis://127.0.0.1:4/0", "out") as file:
        file.rename(tmp_path / "elsewhere.json")
        file.symlink_to(tmp_path / "elsewhere.json")
        assert live_connections(settings) == []


def test_a_file_of_another_version_is_named(settings: Settings) -> None:
    with publish(settings, "redis://127.0.0.1:5/0", "out") as file:
        file.write_text("{}")
        with pytest.raises(LedgerError, match=f"{file.name}: not a connection file"):
            redis_url(settings)


@pytest.fixture
def no_runtime_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("IMAGEMILL_RUNTIME_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"imagemill-{os.geteuid()}"


def test_without_a_session_folder_a_private_one_is_made_in_the_temporary_folder(no_runtime_dir: Path) -> None:
    assert runtime_folder(load_settings()) == no_runtime_dir
    assert stat.S_IMODE(no_runtime_dir.stat().st_mode) == 0o700


def test_a_run_in_the_temporary_folder_is_found_from_a_terminal_with_a_session_folder(
    no_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with publish(load_settings(), "redis://127.0.0.1:6/0", "out"):
        (tmp_path / "session").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
        assert runtime_folder(load_settings()) == tmp_path / "session" / "imagemill"
        assert redis_url(load_settings()) == "redis://127.0.0.1:6/0"


def test_a_temporary_folder_that_is_open_to_others_is_refused(no_runtime_dir: Path) -> None:
    with publish(load_settings(), "redis://127.0.0.1:6/0", "out"):
        no_runtime_dir.chmod(0o755)
        with pytest.raises(SettingsError, match="mode 0700"):
            runtime_folder(load_settings())
        assert live_connections(load_settings()) == []


def test_a_temporary_folder_of_another_users_is_refused(
    no_runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = os.getuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    no_runtime_dir.with_name(f"imagemill-{another}").mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="must be a folder of yours"):
        runtime_folder(load_settings())


def test_a_link_in_place_of_the_temporary_folder_is_refused(no_runtime_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    no_runtime_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="mode 0700"):
        runtime_folder(load_settings())


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://user:secret@host/0", "rediss://***@host/0"),
        ("redis://:sec/r@et@host:6379/0", "redis://***@host:6379/0"),
        ("redis://host/0?db=1&password=secret&ssl=1", "redis://host/0?db=1&password=***&ssl=1"),
        ("unix://:secret@/run/redis.sock?db=1", "unix://***@/run/redis.sock?db=1"),
        (
            "sentinel://:secret@a:1;sentinel://b:2/0?master_name=m&sentinel_password=secret",
            "sentinel://***@a:1;sentinel://b:2/0?master_name=m&sentinel_password=***",
        ),
        ("secret", "***"),
        ("", "(empty)"),
    ],
)
def test_messages_show_a_url_without_its_password(url: str, safe: str) -> None:
    assert safe_url(url) == safe


def test_a_text_is_shown_without_the_passwords_of_its_redis_urls_and_otherwise_unchanged() -> None:
    text = "redis://:secret@a:1/0 and rediss://b:2 failed; see https://hub/user/model@main or me@home"
    assert safe_text(text) == text.replace(":secret", "***")


def test_finding_redis_imports_no_redis_client() -> None:
    code = "import sys, jobs.connection; sys.exit('redis' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
