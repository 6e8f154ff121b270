"""The profile `metrics` of docker-compose.yml: closed to others, its files where services look for them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import LONGEST

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES = {name: one for name, one in COMPOSE["services"].items() if one.get("profiles") == ["metrics"]}
SETTINGS = {"SERVE_TOKEN": "a" * 16, "GRAFANA_PASSWORD": "b" * 8}


class Loader(yaml.SafeLoader):
    """YAML with Compose's `!reset` and `!override`."""


Loader.add_constructor("!reset", lambda _loader, _node: None)
Loader.add_constructor("!override", lambda loader, node: {"!override": True} | loader.construct_mapping(node))


def mounts(service: str) -> dict[str, str]:
    """Where a service finds what: path in it -> path or volume here."""
    found = {}
    for volume in SERVICES[service]["volumes"]:
        here, there = volume.removesuffix(":ro").rsplit(":", 1)
        found[there] = here
    return found


def prometheus() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8")))


@pytest.mark.parametrize("name", ["metrics-settings", "serve", "prometheus", "grafana"])
def test_a_service_has_no_more_rights_than_it_needs_and_is_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"] == "10m"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
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
    # As root's it was closed to the image's user from the second start on.
    assert f"{folder}:uid={SERVICES['prometheus']['user']},mode=700" in SERVICES["prometheus"]["tmpfs"]
    tokens = {
        SERVICES[name]["environment"]["SERVE_TOKEN"] for name in ("metrics-settings", "serve", "prometheus")
    }
    assert tokens == {"${SERVE_TOKEN:-}"}
    for file in prometheus()["rule_files"]:
        assert (ROOT / mounts("prometheus")["/etc/prometheus/imagemill"] / file).is_file()


def settings_told(**variables: str) -> tuple[int, list[str]]:
    """The exit status of the service that looks at the profile's settings, and the lines that it prints."""
    argv = [*SERVICES["metrics-settings"]["entrypoint"], *SERVICES["metrics-settings"]["command"]]
    ran = subprocess.run(
        [part.replace("/deploy/", f"{ROOT}/deploy/") for part in argv],
        env={"PATH": os.environ["PATH"]} | variables, capture_output=True, text=True, check=False,
        timeout=LONGEST,
    )  # fmt: skip
    return ran.returncode, ran.stderr.splitlines()


@pytest.mark.parametrize("wrong", ["", "too short", "a token with spaces", "a-token-with-ä-letter"])
def test_a_token_that_the_pages_would_refuse_is_told_before_anything_starts(wrong: str) -> None:
    status, lines = settings_told(**SETTINGS | {"SERVE_TOKEN": wrong})
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(
        "SERVE_TOKEN: set SERVE_TOKEN in .env, see .env.example: at least 16 characters"
    )


def test_all_that_the_profile_lacks_is_told_at_once() -> None:
    assert settings_told(**SETTINGS) == (0, [])
    status, lines = settings_told()
    assert (status, [line.partition(":")[0] for line in lines]) == (2, list(SETTINGS))


def test_what_a_file_of_the_profile_lacks_is_told_with_the_files_name(tmp_path: Path) -> None:
    for name, value in SETTINGS.items():
        (tmp_path / name.lower()).write_text(f"{value}\n")
    files = {f"{name}_FILE": str(tmp_path / name.lower()) for name in SETTINGS}
    assert settings_told(**files) == (0, [])
    (tmp_path / "serve_token").write_text("")
    (tmp_path / "grafana_password").unlink()
    status, lines = settings_told(**files)
    assert status == 2
    told = [line for line in lines if line.partition(":")[0] in SETTINGS]
    assert ["file serve_token of" in told[0], "file grafana_password of" in told[1]] == [True, True]


@pytest.mark.parametrize("name", ["serve", "prometheus", "grafana"])
def test_a_service_starts_after_its_settings_were_found_good(name: str) -> None:
    """Else it would start and end for ever, and its reason be a line of a log."""
    needed = SERVICES[name]["depends_on"]["metrics-settings"]
    assert needed == {"condition": "service_completed_successfully"}
    assert "restart" not in SERVICES["metrics-settings"]


def test_with_passwords_in_files_the_profile_has_none_in_an_environment() -> None:
    secret = yaml.load((ROOT / "docker-compose.secrets.yml").read_text("utf-8"), Loader)
    for name in SERVICES:
        above = dict(secret["services"][name]["environment"])
        below = {} if above.pop("!override", False) else SERVICES[name]["environment"]
        environment = {key: value for key, value in (below | above).items() if value is not None}
        assert not re.findall(r"\$\{(?:SERVE_TOKEN|GRAFANA_PASSWORD)\b", str(environment)), name
        files = {value for variable, value in environment.items() if variable.endswith("_FILE")}
        assert files == {f"/run/secrets/{one}" for one in secret["services"][name]["secrets"]}, name
        assert set(secret["services"][name]["secrets"]) <= set(secret["secrets"])


def test_the_token_of_a_file_is_the_one_that_the_pages_and_prometheus_take() -> None:
    secret = yaml.load((ROOT / "docker-compose.secrets.yml").read_text("utf-8"), Loader)["services"]
    [scrape] = prometheus()["scrape_configs"]
    file = secret["prometheus"]["environment"]["SERVE_TOKEN_FILE"]
    assert scrape["authorization"]["credentials_file"] == file
    # Both scripts with `imagemill` and `prometheus` replaced: what they would start, and what they wrote.
    for name, program in (("serve", "imagemill"), ("prometheus", "/bin/prometheus")):
        script = SERVICES[name]["command"][0].replace("$$", "$").replace(f"exec {program}", "echo")
        ran = subprocess.run(
            [*SERVICES[name]["entrypoint"], script],
            env={"PATH": os.environ["PATH"], "SERVE_TOKEN_FILE": file}, capture_output=True, text=True,
            check=True, timeout=LONGEST,
        )  # fmt: skip
        assert name == "prometheus" or f"--token-file {file}" in ran.stdout


@pytest.mark.parametrize(
    ("told", "options"),
    [(None, []), ("", []), ("10.0.0.7, 172.16.0.0/12", ["--forwarded-allow-ips", "10.0.0.7, 172.16.0.0/12"])],
)
def test_a_proxy_that_is_no_container_of_ours_is_named_in_a_variable(
    told: str | None, options: list[str], tmp_path: Path
) -> None:
    """Not even a proxy on this machine has an address of loopback in there."""
    assert SERVICES["serve"]["environment"]["SERVE_FORWARDED_ALLOW_IPS"] is None
    assert "\n#SERVE_FORWARDED_ALLOW_IPS=172.16.0.0/12\n" in (ROOT / ".env.example").read_text("utf-8")
    stand_in = tmp_path / "imagemill"
    stand_in.write_text('#!/bin/sh\nfor part; do echo "$part"; done\n')
    stand_in.chmod(0o755)
    ran = subprocess.run(
        [*SERVICES["serve"]["entrypoint"], SERVICES["serve"]["command"][0].replace("$$", "$")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SERVE_TOKEN_FILE": "/token"}
        | ({} if told is None else {"SERVE_FORWARDED_ALLOW_IPS": told}),
        capture_output=True, text=True, check=True, timeout=LONGEST,
    )  # fmt: skip
    serves = ["serve", "--host", "0.0.0.0", "--token-file", "/token"]
    assert ran.stdout.splitlines() == [*serves, *options]


def test_the_images_that_the_example_of_variables_names_are_those_of_the_services() -> None:
    example = (ROOT / ".env.example").read_text("utf-8")
    images = [service["image"] for service in COMPOSE["services"].values() if "IMAGE:-" in service["image"]]
    named = dict(re.findall(r"\$\{(\w+_IMAGE):-(\S+)\}", " ".join(images)))
    assert set(named) == {"REDIS_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE"}
    for variable, image in named.items():
        assert f"\n#{variable}={image}\n" in example
