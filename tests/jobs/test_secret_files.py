"""The address of Redis, or its password alone, may come from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.redis_url import parse_redis_url
from jobs.settings import load_settings


def url() -> str:
    found = load_settings().redis_url
    assert found is not None
    return found.get_secret_value()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def test_the_url_is_read_from_a_file_and_handed_to_children_as_it_is(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    file.write_text("redis://worker:secret@10.0.0.7:6379/0\n")
    monkeypatch.setenv("IMAGEMILL_REDIS_URL_FILE", str(file))
    assert url() == "redis://worker:secret@10.0.0.7:6379/0"
    child = load_settings().environment()
    assert child["IMAGEMILL_REDIS_URL"] == url()
    assert "IMAGEMILL_REDIS_URL_FILE" not in child
    assert "secret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("without", "user"),
    [
        ("redis://worker@10.0.0.7:6379/0", "worker"),
        ("rediss://10.0.0.7", ""),
        ("unix:///run/redis.sock?db=2", ""),
        ("sentinel://worker@10.0.0.7;sentinel://10.0.0.8/0?master_name=a", "worker"),
    ],
)
def test_a_password_in_a_file_completes_the_url(
    monkeypatch: pytest.MonkeyPatch, file: Path, without: str, user: str
) -> None:
    file.write_text("p@ss:w/rd;?#%\n")
    monkeypatch.setenv("IMAGEMILL_REDIS_URL", without)
    monkeypatch.setenv("IMAGEMILL_REDIS_PASSWORD_FILE", str(file))
    with_it, before = parse_redis_url(url()), parse_redis_url(without)
    assert (with_it.username, with_it.password) == (user, "p@ss:w/rd;?#%")
    assert (with_it.hosts, with_it.path, with_it.database) == (before.hosts, before.path, before.database)


@pytest.mark.parametrize(
    ("environment", "contents", "message"),
    [
        (
            {"URL": "redis://a", "URL_FILE": "{}"},
            "redis://b",
            "REDIS_URL_FILE: IMAGEMILL_REDIS_URL is set too",
        ),
        ({"PASSWORD_FILE": "{}"}, "secret", "PASSWORD_FILE: needs IMAGEMILL_REDIS_URL"),
        ({"URL": "redis://:x@a", "PASSWORD_FILE": "{}"}, "secret", "IMAGEMILL_REDIS_URL has a password too"),
        ({"URL_FILE": "{}"}, "", "must hold one line, and nothing is there"),
        ({"URL_FILE": "{}"}, "secret\nsecret", "must hold one line, and more is there"),
        ({"URL_FILE": "{}.away"}, "secret", r"URL_FILE = /.*: cannot be read \(No such file or directory\)"),
        ({"URL_FILE": "/dev/zero"}, "secret", r"URL_FILE = /dev/zero: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_its_contents(
    monkeypatch: pytest.MonkeyPatch, file: Path, environment: dict[str, str], contents: str, message: str
) -> None:
    file.write_text(contents)
    for name, value in environment.items():
        monkeypatch.setenv(f"IMAGEMILL_REDIS_{name}", value.format(file))
    with pytest.raises(SettingsError, match=message) as refused:
        load_settings()
    assert "secret\n" not in str(refused.value)


def test_a_url_that_is_given_comes_before_the_files(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("IMAGEMILL_REDIS_URL_FILE", str(file))
    found = load_settings(redis_url="redis://127.0.0.1:6379/0").redis_url
    assert found is not None
    assert found.get_secret_value() == "redis://127.0.0.1:6379/0"
