"""A real Prometheus scrapes the pages while workers render: each panel, variable and rule gets its answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.farm import Farm
from tests.ports import free_port
from tests.started import Started
from tests.waiting import LONGEST, WaitUntil
from tests.warm_python import BIN, warm_imagemill

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text("utf-8"))
TOKEN = "of-twenty-characters"
ON_GPUS = {"GPU memory", "GPU use"}
"""Panels without an answer here."""


class Prometheus(Started):
    """deploy/prometheus/prometheus.yml with another target, another file for the token, and less patience."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        self._program, self._folder, self._port = program, folder, free_port()
        shutil.copytree(DEPLOY / "prometheus", folder)
        config = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        [scrape] = config["scrape_configs"]
        scrape["static_configs"] = [{"targets": [target]}]
        (folder / "token").write_text(TOKEN)
        scrape["authorization"]["credentials_file"] = str(folder / "token")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                cwd=self._folder,
                stderr=log,
            )

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def ask(self, path: str, **given: str) -> Any:
        """Asks its API; None as long as it does not answer."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(url, timeout=LONGEST) as answer:
                told = json.load(answer)
        except OSError as error:
            if getattr(error, "code", 503) == 503:
                return None
            raise
        assert told["status"] == "success"
        return told["data"]

    def query(self, expression: str) -> list[Any]:
        """The samples that an expression has now."""
        found = self.ask("query", query=expression)
        return [] if found is None else list(found["result"])


@pytest.fixture
def pages(farm: Farm) -> Iterator[str]:
    """The address of `imagemill serve` with a token."""
    process = warm_imagemill().popen(
        [BIN / "imagemill", "serve", "--port", "0", "--token", TOKEN],
        env=farm.environment(), text=True, stdout=subprocess.PIPE, cwd=farm.folder,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://(127\.0\.0\.1:\d+)/", process.stdout.readline())
    assert found is not None
    yield found[1]
    process.kill()
    process.communicate()


def questions() -> Iterator[tuple[str, str]]:
    """Panel, and its query with what Grafana puts in for all jobs."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$job_id", ".*")


def test_each_panel_and_variable_of_the_dashboard_and_each_rule_gets_its_answer(
    farm: Farm, pages: str, wait_until: WaitUntil
) -> None:
    """Without Prometheus (Debian: prometheus), tests/test_alerts.py reads what it would be asked."""
    program = shutil.which("prometheus")
    if program is None:
        return
    paused = farm.submit(8, name="dogs", output=str(farm.folder / "dogs"))
    farm.ledger.control(paused, "pause")
    job_id = farm.submit(4000)
    for name in ("w1", "w2"):
        farm.start_worker(name, concurrency=1, instant_seconds=0.1)
    with Prometheus(program, farm.folder / "prometheus", pages) as prometheus:
        wait_until(
            lambda: prometheus.query("sum(rate(imagemill_worker_images_total[5m])) > 0"), "both render",
            progress=lambda: farm.status(job_id).done,
        )  # fmt: skip
        assert len(prometheus.query('imagemill_workers{state="busy"}')) == 1, "one series for both"
        unanswered = {title for title, query in questions() if not prometheus.query(query)}
        assert unanswered == ON_GPUS
        definitions = [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
        for definition in definitions:
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition)
            assert found is not None
            assert prometheus.ask(f"label/{found[2]}/values", **{"match[]": found[1]}) == [job_id, paused]
        [group] = prometheus.ask("rules")["groups"]
        assert {rule["name"]: rule["health"] for rule in group["rules"]} == dict.fromkeys(
            (rule["name"] for rule in group["rules"]), "ok"
        )
        assert prometheus.query('ALERTS{alertstate="firing"}') == [], "a mill that works raises nothing"
        farm.ledger.control(job_id, "cancel")
        farm.finished(job_id)
        ours = f'{{job_id="{job_id}", __name__!="imagemill_images"}}'
        wait_until(lambda: not prometheus.query(ours), "what only an unfinished job has is gone")
