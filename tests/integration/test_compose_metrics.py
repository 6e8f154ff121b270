"""The profile `metrics` of docker-compose.yml: closed to others, its files where services look for them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES = {name: one for name, one in COMPOSE["services"].items() if one.get("profiles") == ["metrics"]}


def mounts(service: str) -> dict[str, str]:
    """Where a service finds what: path in it -> path or volume here."""
    found = {}
    for volume in SERVICES[service]["volumes"]:
        here, there = volume.removesuffix(":ro").rsplit(":", 1)
        found[there] = here
    return found


def prometheus() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8")))


@pytest.mark.parametrize("name", ["serve", "prometheus", "grafana"])
def test_a_service_has_no_more_rights_than_it_needs_and_is_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"] == "10m"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "build" not in service


def test_the_files_that_are_mounted_are_there_and_the_volumes_declared() -> None:
    for name in SERVICES:
        for here in mounts(name).values():
            there = (ROOT / here).exists() if here.startswith("./") else here in COMPOSE["volumes"]
            assert there or here.startswith("${OUTPUTS"), f"{name}: {here}"
    [provider] = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/imagemill.yml").read_text("utf-8")
    )["providers"]
    assert f"{provider['options']['path']}/imagemill.json" in mounts("grafana")


def test_prometheus_scrapes_the_service_with_the_token_that_both_are_given() -> None:
    [scrape] = prometheus()["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["serve:8484"]}]
    assert f"> {scrape['authorization']['credentials_file']}\n" in SERVICES["prometheus"]["command"][0]
    folder = Path(scrape["authorization"]["credentials_file"]).parent
    assert str(folder) in SERVICES["prometheus"]["tmpfs"]
    tokens = {SERVICES[name]["environment"]["SERVE_TOKEN"] for name in ("serve", "prometheus")}
    assert tokens == {"${SERVE_TOKEN:-}"}
    for file in prometheus()["rule_files"]:
        assert (ROOT / mounts("prometheus")["/etc/prometheus/imagemill"] / file).is_file()


@pytest.mark.parametrize(("name", "password"), [("grafana", "GF_SECURITY_ADMIN_PASSWORD")])
def test_without_a_password_it_does_not_start(name: str, password: str) -> None:
    [script] = SERVICES[name]["command"]
    ran = subprocess.run(
        [*SERVICES[name]["entrypoint"], script.replace("$$", "$")],
        env={password: "", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (2, "set GRAFANA_PASSWORD in .env, see .env.example\n")
