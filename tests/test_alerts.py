"""The alerts and the dashboard of deploy/ name metrics that there are, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from jobs.ledger.eviction import RedisMemory
from jobs.ledger.overview import Counted, Overview
from producer.metrics.collector import SHARD_STATES, WHY, LedgerCollector
from producer.metrics.families import FAMILIES, SHARDS

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
TESTS = DEPLOY / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text("utf-8"))
LABELS = {family.name: {*family.labels} for family in FAMILIES}
WORD = re.compile(r'(imagemill_\w+)\s*(\{(?:[^}"]|"[^"]*")*\})?')
SELECTOR = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable.get("definition", "")


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_names_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    for name, selector in WORD.findall(expression):
        assert name in LABELS, f"{where}: {name}"
        for label, value in SELECTOR.findall(selector):
            assert label in LABELS[name], f"{where}: {name} has no {label}"
            if label == "why":
                assert {*value.split("|")} <= {*WHY}, f"{where}: no job waits for {value}"
            if (name, label) == (SHARDS.name, "state"):
                assert {*value.split("|")} <= {*SHARD_STATES}, f"{where}: no shard is {value}"


def test_every_metric_is_used_by_an_alert_or_shown() -> None:
    used = {name for _, expression in expressions() for name, _ in WORD.findall(expression)}
    assert sorted({*LABELS} - used - {"imagemill_redis_eviction_policy"}) == []
    assert "imagemill_redis_eviction_policy" in RULES.read_text("utf-8")


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) == 9
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {*rule["annotations"]} == {"summary", "description"}
        assert rule["alert"] in TESTS.read_text("utf-8"), "no test of the alert"


def test_the_page_says_of_each_alert_when_it_fires_and_what_to_do() -> None:
    page = (DEPLOY.parent / "docs" / "monitor.md").read_text("utf-8")
    rows = re.findall(r"^\| `(Imagemill\w+)` \| ([^|]+) \| ([^|]+) \|$", page, re.M)
    assert [alert for alert, _, _ in rows] == [rule["alert"] for rule in rules()]


def test_the_dashboards_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_promtool_finds_the_rules_right_and_they_fire_when_they_should() -> None:
    """Without promtool (Debian: prometheus), the tests above read the rules."""
    program = shutil.which("promtool")
    if program is None:
        assert yaml.safe_load(TESTS.read_text("utf-8"))["rule_files"] == [RULES.name]
        return
    for arguments in (
        ["check", "rules", "--lint-fatal", RULES],
        ["check", "config", "--syntax-only", RULES.with_name("prometheus.yml")],
        ["test", "rules", TESTS],
    ):
        ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_takes_what_the_pages_serve() -> None:
    """Its linter knows Prometheus' conventions for names."""
    facts = {"images": "1", "gpu_memory_used": "1", "gpu_memory_total": "2", "gpu_utilisation": "0.5"}
    seen = Overview([], {"w1": facts}, Counted(), RedisMemory("noeviction", False, 1, 2), 0.0)
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: seen))
    text = generate_latest(registry)
    assert b"imagemill_worker_images_total" in text
    if (program := shutil.which("promtool")) is not None:
        ran = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, check=False)
        assert (ran.returncode, ran.stdout + ran.stderr) == (0, b"")
