"""Metrics of real workers that render a real job: equal to the ledger, and gone when their worker is."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import cast

import psutil
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobs.ledger import redis_keys
from producer.metrics.collector import LedgerCollector
from tests.farm import Farm
from tests.waiting import LONGEST, WaitUntil
from worker.stage_seconds import STAGES

WORKER = "cpu0@w1"
PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"


class Scrapes:
    """What Prometheus finds of a farm."""

    def __init__(self, farm: Farm) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(LedgerCollector(farm.ledger.overview))

    def look(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """The series of a metric that have these labels among theirs."""
        found = text_string_to_metric_families(generate_latest(self._registry).decode())
        return [
            (sample.labels, sample.value)
            for family in found
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def value(self, name: str, **labels: str) -> float:
        """That of the only such series; -1 where there is none."""
        found = self.look(name, **labels)
        assert len(found) < 2, found
        return found[0][1] if found else -1.0


def test_the_figures_of_a_job_are_the_ledgers_and_a_killed_workers_series_go(
    farm: Farm, wait_until: WaitUntil
) -> None:
    scrapes = Scrapes(farm)
    job_id = farm.submit(24)
    assert scrapes.value("imagemill_oldest_wait_seconds", why="no worker") > 0
    farm.start_worker("w1")
    status = farm.finished(job_id)
    assert status.done == 24
    for state, count in (("done", 24), ("failed", 0), ("flagged", 0), ("left", 0)):
        assert scrapes.value("imagemill_images", job_id=job_id, state=state) == count
    assert not [labels for labels, _ in scrapes.look("imagemill_shards") if labels["job_id"] == job_id]

    # The heartbeat after the last picture tells all of it.
    wait_until(
        lambda: scrapes.value("imagemill_worker_images_total", worker=WORKER) == 24, "24 pictures are told"
    )
    spent = {
        stage: scrapes.value("imagemill_worker_stage_seconds_total", worker=WORKER, stage=stage)
        for stage in STAGES
    }
    assert min(spent.values()) >= 0
    assert min(spent["load"] + spent["sample"], spent["encode"], spent["write"]) > 0
    idle = {"device": "cpu", "model": "instant", "state": "idle"}
    wait_until(lambda: scrapes.look("imagemill_workers") == [(idle, 1.0)], "the worker is idle")

    supervisor = psutil.Process(farm.workers["w1"].pid)
    for process in [*supervisor.children(recursive=True), supervisor]:
        os.kill(process.pid, signal.SIGKILL)
    farm.workers["w1"].wait()
    # Gone from Prometheus, too, within two minutes. Less than its heartbeat lasts is waited for here.
    scrape = yaml.safe_load(PROMETHEUS.read_text("utf-8"))["global"]["scrape_interval"]
    lasts = cast(int, farm.client.ttl(redis_keys.worker(WORKER)))
    assert lasts > 0
    assert lasts + 2 * int(scrape.removesuffix("s")) < 120
    assert scrapes.look("imagemill_workers")
    farm.client.expire(redis_keys.worker(WORKER), 1)
    wait_until(lambda: not scrapes.look("imagemill_workers"), "its series go")
    for name in ("imagemill_worker_stage_seconds_total", "imagemill_worker_images_total"):
        assert scrapes.look(name) == []
    assert scrapes.value("imagemill_images", job_id=job_id, state="done") == 24


def test_a_real_model_decodes_and_samples_for_some_time(farm: Farm, wait_until: WaitUntil) -> None:
    scrapes = Scrapes(farm)
    farm.start_worker("w1")
    farm.finished(farm.submit(2, model="shapes"))
    stages = ("load", "sample", "decode", "encode", "write")

    def spent() -> list[float]:
        name = "imagemill_worker_stage_seconds_total"
        return [scrapes.value(name, worker=WORKER, stage=stage) for stage in stages]

    wait_until(lambda: min(spent()) > 0, "each stage took some time", progress=spent)
    [(labels, count)] = scrapes.look("imagemill_workers")
    assert (labels["model"], count) == ("shapes", 1.0)
    assert labels["device"].startswith("cpu ")


def test_a_job_that_every_worker_refuses_asks_for_none_until_it_is_resumed(
    farm: Farm, wait_until: WaitUntil
) -> None:
    scrapes = Scrapes(farm)
    job_id = farm.submit(24)

    def shards() -> dict[str, float]:
        found = scrapes.look("imagemill_shards", job_id=job_id)
        return {labels["state"]: count for labels, count in found if count}

    assert shards() == {"waiting": 3}
    elsewhere = farm.folder / "elsewhere"
    elsewhere.mkdir()
    worker = farm.start_worker("w1", output_root=elsewhere)
    wait_until(lambda: shards() == {"refused": 3}, "its outputs lie elsewhere, so it refuses")
    worker.terminate()
    assert worker.wait(LONGEST) == 0
    assert not scrapes.look("imagemill_workers")
    assert shards() == {"refused": 3}, "another one of this kind would refuse it, too"
    farm.ledger.control(job_id, "resume")
    assert shards() == {"waiting": 3}
