"""What a scrape finds of the ledger: every family, equal to the ledger, bounded, and gone with its cause."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from jobs.errors import LedgerError, LedgerUnavailable
from jobs.ledger.eviction import RedisMemory
from jobs.ledger.job import JobStatus, UnreadableJob
from jobs.ledger.overview import Counted, Overview
from producer.metrics.collector import MOST_JOBS, MOST_WORKERS, OTHERS, WHY, LedgerCollector
from producer.metrics.families import FAMILIES
from worker.stage_seconds import STAGES

MakeStatus = Callable[..., JobStatus]
Figures = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
NOW = 10_000.0
FACTS = {
    "device": "NVIDIA H200",
    "models": "[]",
    "claims": '[["cats-1", "3", 5]]',
    "busy": "1",
    "images": "7",
    "pipeline": '["org/sd", "1", "auto"]',
    **{f"{stage}_seconds": "1.5" for stage in STAGES},
    "gpu_memory_used": "8000000000",
    "gpu_memory_total": "141000000000",
    "gpu_utilisation": "0.75",
}
HOSTILE = 'org/"} 1\nimagemill_redis_up 7\r\\\x00\u2028é{model="x"'


def seen(*jobs: JobStatus | UnreadableJob, **workers: Mapping[str, str]) -> Overview:
    memory = RedisMemory("noeviction", False, 5_000_000, 100_000_000)
    return Overview(jobs, workers, Counted(3, 2), memory, NOW)


def scraped(overview: Overview | LedgerError) -> dict[str, Metric]:
    """The families that Prometheus' own parser finds, by name."""

    def read() -> Overview:
        if isinstance(overview, LedgerError):
            raise overview
        return overview

    registry = CollectorRegistry()
    registry.register(LedgerCollector(read))
    text = generate_latest(registry).decode()
    found = list(text_string_to_metric_families(text))
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def figures(overview: Overview | LedgerError) -> Figures:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in scraped(overview).values()
        for sample in family.samples
    }


def of(found: Figures, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def shards_of(found: Figures) -> Mapping[tuple[str, str], float]:
    """Shards by job and state."""
    return {
        (dict(labels)["job_id"], dict(labels)["state"]): value
        for (name, labels), value in found.items()
        if name == "imagemill_shards"
    }


def test_every_family_is_told_with_its_type_and_meaning(job_status: MakeStatus) -> None:
    found = scraped(seen(job_status(), w1=FACTS))
    assert {name.removesuffix("_total") for name in (one.name for one in FAMILIES)} == {*found}
    for family in FAMILIES:
        metric = found[family.name.removesuffix("_total")]
        assert (metric.type, metric.documentation) == (family.kind, family.meaning)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert metric.samples, family.name
        assert {label for sample in metric.samples for label in sample.labels} == {*family.labels}
        assert not {"job", "instance"} & {*family.labels}, "Prometheus' own labels"


def test_the_figures_are_the_ledgers(job_status: MakeStatus) -> None:
    job = job_status(flagged=4)
    found = figures(seen(job, UnreadableJob("dogs-1", "no"), w1=FACTS))
    told = {state: of(found, "imagemill_images", job_id="cats-1", state=state) for state in
            ("done", "failed", "flagged", "left")}  # fmt: skip
    assert told == {"done": 38, "failed": 2, "flagged": 4, "left": 60}
    assert of(found, "imagemill_images_per_second", job_id="cats-1") == 2.0
    assert of(found, "imagemill_shards", job_id="cats-1", model="org/sd", state="waiting") == 4
    assert of(found, "imagemill_shards", job_id="cats-1", model="org/sd", state="leased") == 2
    assert of(found, "imagemill_refusing_workers", job_id="cats-1") == 1
    assert (of(found, "imagemill_jobs", state="sealed"), of(found, "imagemill_unreadable_jobs")) == (1, 1)
    assert (of(found, "imagemill_lease_expiries_total"), of(found, "imagemill_refusals_total")) == (3, 2)
    assert of(found, "imagemill_redis_memory_used_bytes") == 5_000_000
    assert of(found, "imagemill_redis_memory_max_bytes") == 100_000_000
    assert of(found, "imagemill_redis_eviction_policy", policy="noeviction") == 1


def test_what_a_worker_tells(job_status: MakeStatus) -> None:
    found = figures(seen(job_status(), w1=FACTS))
    assert of(found, "imagemill_workers", device="NVIDIA H200", model="org/sd", state="busy") == 1
    for stage in STAGES:
        assert of(found, "imagemill_worker_stage_seconds_total", worker="w1", stage=stage) == 1.5
    assert of(found, "imagemill_worker_images_total", worker="w1") == 7
    assert of(found, "imagemill_worker_gpu_memory_used_bytes", worker="w1") == 8e9
    assert of(found, "imagemill_worker_gpu_utilisation_ratio", worker="w1") == 0.75


@pytest.mark.parametrize("told", [{}, {"images": "x", "gpu_utilisation": "nan", "load_seconds": "-1"}])
def test_what_a_worker_does_not_tell_is_not_told(told: Mapping[str, str]) -> None:
    found = figures(seen(old={"host": "a", "pid": "1", **told}))
    assert not [name for name, _labels in found if name.startswith("imagemill_worker_")]
    assert of(found, "imagemill_workers", device="", model="", state="idle") == 1


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"loading": "downloading"}, "loading"),
        ({"notice": "no room"}, "waiting"),
        ({"stuck": "hangs", "notice": "hangs"}, "stuck"),
        ({"claims": "[]", "busy": "0"}, "idle"),
        ({}, "busy"),
    ],
)
def test_the_state_of_a_worker(facts: Mapping[str, str], state: str) -> None:
    found = figures(seen(w1=FACTS | facts))
    assert of(found, "imagemill_workers", device="NVIDIA H200", model="org/sd", state=state) == 1


def test_a_hostile_model_makes_no_line_of_its_own() -> None:
    facts = FACTS | {"pipeline": json.dumps([HOSTILE, "1", "auto"]), "device": "d" * 5000}
    found = figures(seen(w1=facts, **{HOSTILE: FACTS}))
    assert of(found, "imagemill_redis_up") == 1
    models = {dict(labels)["model"] for name, labels in found if name == "imagemill_workers"}
    assert models == {HOSTILE, "org/sd"}
    assert {len(dict(labels)["device"]) for name, labels in found if name == "imagemill_workers"} == {200, 11}
    assert of(found, "imagemill_worker_images_total", worker=HOSTILE) == 7


def test_why_the_longest_waiting_jobs_wait(job_status: MakeStatus) -> None:
    waits = replace(job_status(), workers=[], refusals={}, last_moved=NOW - 900)
    paused = replace(waits, job_id="cats-2", paused=True, last_moved=NOW - 5000)
    longer = replace(waits, job_id="cats-3", last_moved=NOW - 1200)
    done = replace(waits, job_id="cats-4", state="finished", last_moved=1.0)
    found = figures(seen(waits, paused, longer, done))
    told = {why: of(found, "imagemill_oldest_wait_seconds", why=why) for why in WHY}
    assert told == dict.fromkeys(WHY, 0.0) | {"no worker": 1200, "paused": 5000}
    free = {"models": "[]", "claims": "[]", "busy": "0"}
    found = figures(seen(waits, w1=free))
    assert of(found, "imagemill_oldest_wait_seconds", why="starting") == 900


def test_shards_of_a_paused_job_do_not_wait_for_a_worker(job_status: MakeStatus) -> None:
    found = figures(seen(job_status(paused=True), replace(job_status(), job_id="dogs-1")))
    assert shards_of(found) == {
        ("cats-1", "paused"): 4, ("cats-1", "leased"): 2, ("dogs-1", "waiting"): 4, ("dogs-1", "leased"): 2,
    }  # fmt: skip


REFUSED = {"workers": [], "refusals": {}, "refused_by": {"w1": "no GPU", "w0": "no GPU"}}
"""A job that w1 refused, and w0, which is gone; their refusals are over, so w1 may try again soon."""


@pytest.mark.parametrize(
    ("changes", "models", "shards"),
    [
        ({}, {"w1": []}, {"refused": 4, "leased": 0}),
        ({"workers": ["w1"], "shards_ready": 3, "shards_leased": 1}, {"w1": []}, {"refused": 4, "leased": 0}),
        ({}, {}, {"refused": 4, "leased": 0}),
        ({}, {"w1": [], "w2": ["another"]}, {"refused": 4, "leased": 0}),
        ({}, {"w1": [], "w2": ["another", "org/sd"]}, {"waiting": 4, "leased": 0}),
        ({}, {"w1": [], "w2": []}, {"waiting": 4, "leased": 0}),
        ({"paused": True}, {"w1": []}, {"refused": 4, "leased": 0}),
        ({"ending": "cancelled", "shards_ready": 0}, {"w1": []}, {"waiting": 0, "leased": 0}),
        ({"state": "finishing", "shards_ready": 0}, {"w1": []}, {"refused": 1, "leased": 0}),
        (
            {"state": "finishing", "ending": "cancelled", "shards_ready": 0},
            {"w1": []},
            {"refused": 1, "leased": 0},
        ),
        ({"state": "finishing", "ending": "cancelled", "shards_ready": 0}, {}, {"ending": 1, "leased": 0}),
        (
            {"state": "finishing", "shards_ready": 0},
            {"w1": [], "w2": ["another"]},
            {"waiting": 1, "leased": 0},
        ),
    ],
)
def test_shards_that_every_worker_has_refused_do_not_wait_for_one(
    job_status: MakeStatus,
    changes: Mapping[str, object],
    models: Mapping[str, list[str]],
    shards: Mapping[str, int],
) -> None:
    job = job_status(**{"shards_leased": 0} | REFUSED | changes)
    alive = {name: FACTS | {"models": json.dumps(takes), "claims": "[]"} for name, takes in models.items()}
    assert shards_of(figures(seen(job, **alive))) == {("cats-1", state): n for state, n in shards.items()}


def test_a_job_that_was_refused_before_the_last_worker_left_asks_for_none(
    job_status: MakeStatus,
) -> None:
    job = job_status(**REFUSED, last_moved=NOW - 900)
    assert of(figures(seen(job)), "imagemill_oldest_wait_seconds", why="refused") == 900
    assert of(figures(seen(job)), "imagemill_oldest_wait_seconds", why="no worker") == 0


def test_what_is_left_of_a_cancelled_job_rings_no_alarm(job_status: MakeStatus) -> None:
    job = job_status(**REFUSED, state="finishing", ending="cancelled", last_moved=NOW - 900)
    waits = {why: of(figures(seen(job)), "imagemill_oldest_wait_seconds", why=why) for why in WHY}
    assert {why: seconds for why, seconds in waits.items() if seconds} == {"ending": 900}


@pytest.mark.parametrize(
    ("leased", "shards"), [(0, {"waiting": 1, "leased": 0}), (1, {"waiting": 0, "leased": 1})]
)
def test_a_job_that_has_only_to_be_finished_asks_for_a_worker(
    job_status: MakeStatus, leased: int, shards: Mapping[str, int]
) -> None:
    job = job_status(state="finishing", left=0, shards_ready=0, shards_leased=leased)
    assert shards_of(figures(seen(job))) == {("cats-1", state): n for state, n in shards.items()}


def test_a_job_that_is_gone_and_a_finished_one_lose_series(job_status: MakeStatus) -> None:
    done = replace(job_status(), job_id="dogs-1", state="finished", left=0)
    jobs = {dict(labels).get("job_id") for _name, labels in figures(seen(done))}
    assert jobs == {None, "dogs-1"}
    names = {name for name, labels in figures(seen(done)) if dict(labels).get("job_id")}
    assert names == {"imagemill_images"}


def test_a_job_and_a_worker_have_as_many_series_as_the_documents_say(job_status: MakeStatus) -> None:
    found = figures(seen(job_status(), w1=FACTS))
    assert len([1 for _name, labels in found if dict(labels).get("job_id") == "cats-1"]) == 8
    assert len([1 for _name, labels in found if dict(labels).get("worker") == "w1"]) == 9


def test_labels_that_differ_late_stay_apart() -> None:
    names = {f"{'w' * 300}{n}": FACTS | {"images": str(n)} for n in range(2)}
    found = figures(seen(**names))
    told = {
        dict(labels)["worker"]: v
        for (name, labels), v in found.items()
        if name == "imagemill_worker_images_total"
    }
    assert sorted(told.values()) == [0, 1]
    assert {len(name) for name in told} == {200}


def test_series_are_bounded(job_status: MakeStatus) -> None:
    old = [replace(job_status(), job_id=f"old-{n}", state="finished") for n in range(MOST_JOBS)]
    new = [replace(job_status(), job_id=f"new-{n}") for n in range(10)]
    workers = {f"w{n}": FACTS | {"device": f"d{n}"} for n in range(MOST_WORKERS + 7)}
    found = figures(seen(*old, *new, **workers))
    listed = {dict(labels)["job_id"] for name, labels in found if name == "imagemill_images"}
    own = {f"new-{n}" for n in range(10)} | {f"old-{n}" for n in range(10, MOST_JOBS)}
    assert listed == {*own, OTHERS}
    assert of(found, "imagemill_images", job_id=OTHERS, state="done") == 10 * 38
    shards = [value for (name, _labels), value in found.items() if name == "imagemill_shards"]
    assert sum(shards) == 10 * 6
    assert of(found, "imagemill_unlisted", of="jobs") == 10
    assert of(found, "imagemill_unlisted", of="workers") == 7
    groups = [value for (name, _labels), value in found.items() if name == "imagemill_workers"]
    assert (len(groups), sum(groups)) == (MOST_WORKERS + 1, MOST_WORKERS + 7)
    assert len(found) < 8 * MOST_JOBS + 10 * MOST_WORKERS + 50


def test_shards_keep_their_model_where_their_job_has_no_series_of_its_own(job_status: MakeStatus) -> None:
    """Who scales the workers of a model must not lose the jobs that are not listed."""
    first = [replace(job_status(), job_id=f"first-{n}") for n in range(MOST_JOBS)]
    later = [replace(job_status(), job_id=f"later-{n}", model=f"org/{n % 2}") for n in range(10)]
    found = figures(seen(*first, *later))
    for model in ("org/0", "org/1"):
        assert of(found, "imagemill_shards", job_id=OTHERS, model=model, state="waiting") == 5 * 4
    many = [replace(job_status(), job_id=f"later-{n}", model=f"org/{n}") for n in range(2 * MOST_JOBS)]
    found = figures(seen(*first, *many))
    assert of(found, "imagemill_shards", job_id=OTHERS, model=OTHERS, state="waiting") == MOST_JOBS * 4
    shards = [value for (name, _labels), value in found.items() if name == "imagemill_shards"]
    assert (len(shards), sum(shards)) == (2 * (2 * MOST_JOBS + 1), 3 * MOST_JOBS * 6)


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), LedgerError("no right")])
def test_a_ledger_that_cannot_be_read_is_said_to_be_away(error: LedgerError) -> None:
    """A Redis that refuses has no figures either, and those who scale workers must not take that for 0."""
    found = figures(error)
    assert of(found, "imagemill_redis_up") == 0
    assert of(found, "imagemill_scrape_errors_total") == 1
    assert {name for name, _labels in found} == {
        "imagemill_redis_up", "imagemill_scrape_errors_total", "imagemill_scrape_seconds",
    }  # fmt: skip


def test_what_this_user_of_redis_may_not_read_is_left_out(job_status: MakeStatus) -> None:
    found = figures(replace(seen(job_status()), counted=None, memory=RedisMemory("", False)))
    names = {name for name, _labels in found}
    assert not {name for name in names if "expiries" in name or "refusals" in name or "redis_mem" in name}
    assert of(found, "imagemill_redis_up") == 1
