"""A service beside a container may have any name; a setting that is not known is still refused."""

from __future__ import annotations

import pytest

from jobs.errors import SettingsError
from jobs.settings import load_settings

# What Kubernetes puts into a container for the Services `imagemill` and `imagemill-redis`, with a named port.
LINKS = {
    "IMAGEMILL_SERVICE_HOST": "10.96.14.7",
    "IMAGEMILL_SERVICE_PORT": "8080",
    "IMAGEMILL_SERVICE_PORT_HTTP_METRICS": "8080",
    "IMAGEMILL_PORT": "tcp://10.96.14.7:8080",
    "IMAGEMILL_REDIS_SERVICE_HOST": "fd00:10:96::7",
    "IMAGEMILL_REDIS_SERVICE_PORT": "6379",
    "IMAGEMILL_REDIS_PORT": "tcp://[fd00:10:96::7]:6379",
    "IMAGEMILL_REDIS_PORT_6379_TCP": "tcp://10.96.3.9:6379",
    "IMAGEMILL_REDIS_PORT_6379_TCP_PROTO": "tcp",
    "IMAGEMILL_REDIS_PORT_6379_TCP_PORT": "6379",
    "IMAGEMILL_REDIS_PORT_6379_TCP_ADDR": "10.96.3.9",
}


def test_the_links_of_services_are_passed_over_and_reach_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in LINKS.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("IMAGEMILL_LEASE", "7")
    settings = load_settings()
    assert settings.lease == 7
    assert not set(LINKS) & set(settings.environment())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("IMAGEMILL_PORT", "8080"),
        ("IMAGEMILL_REDIS_PORT", "6379"),
        ("IMAGEMILL_SERVICE_HOST", "redis"),
        ("IMAGEMILL_REDIS_PORT_6379_TCP_PROTO", "6379"),
        ("IMAGEMILL_LEASES", "30"),
        ("IMAGEMILL_PORTS", "tcp://10.96.14.7:8080"),
    ],
)
def test_what_somebody_wrote_is_still_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}: no such setting"):
        load_settings()
