"""A manifest goes in, real workers render it, pictures with their metadata come out."""

import json
from collections.abc import Callable

import psutil
import pytest

from jobs.ledger.job import JobStatus
from tests.waiting import WaitUntil

LINES: list[object] = [
    "a fox",
    {"prompt": "a hen", "seeds": [0, 1], "id": "hen", "columns": {"split": "train"}},
    {"prompt": "a cow", "width": 128, "guidance_scale": 1},
]


def test_a_manifest_becomes_pictures_with_their_metadata(farm, finished: Callable[..., JobStatus]) -> None:
    farm.start_worker()
    job_id = farm.submit(LINES)
    status = finished(job_id)
    assert status.outcome == "complete"
    farm.check_exact(job_id, 4)
    rows = {(row["text"], row["seed"]): row for row in farm.records()}
    assert rows[("a hen", 0)]["id"] == "hen"
    assert rows[("a hen", 1)]["split"] == "train"
    job = json.loads((farm.output / "job.json").read_text())
    assert (job["job_id"], job["images"]["done"]) == (job_id, 4)
    assert not (farm.output / ".imagemill" / "spool").exists()


def test_the_stand_in_model_never_loads_torch(farm, finished: Callable[..., JobStatus]) -> None:
    farm.start_worker()
    finished(farm.submit(4))
    mapped = {file.path for file in psutil.Process(farm.celery_pid("w1")).memory_maps()}
    assert mapped
    assert not any("libtorch" in path for path in mapped)


def test_submitting_again_renders_only_what_is_new_also_after_redis_was_wiped(
    farm, finished: Callable[..., JobStatus]
) -> None:
    farm.start_worker()
    finished(farm.submit(["one", "two", "three"]))
    before = {row["image_id"]: row["sha256"] for row in farm.records()}
    second = farm.submit(["zero", "one", "two", "three"])
    status = finished(second)
    assert (second, status.total, status.held) == ("cats-2", 1, 3)
    farm.client.flushall()
    third = farm.submit(["zero", "one", "two", "three", "four"])
    status = finished(third)
    assert (third, status.total, status.held) == ("cats-3", 1, 4)
    rows = farm.records()
    assert len(rows) == len({row["image_id"] for row in rows}) == 5
    assert before.items() <= {row["image_id"]: row["sha256"] for row in rows}.items()
    fourth = farm.submit(["zero", "one", "two", "three", "four"])
    assert (finished(fourth).total, len(farm.records())) == (0, 5)


@pytest.mark.usefixtures("troubled")
def test_one_bad_prompt_never_stops_a_job_and_is_reported_with_its_reason(
    farm, finished: Callable[..., JobStatus]
) -> None:
    farm.start_worker()
    job_id = farm.submit(["good 1", "!raise", "good 2", "!nan", "!black", "good 3"])
    status = finished(job_id)
    assert (status.outcome, status.done, status.failed, status.left) == ("failures", 4, 2, 0)
    found = [json.loads(line) for line in (farm.output / "failures.jsonl").read_text().splitlines()]
    assert {failure["request"]["prompt"] for failure in found} == {"!raise", "!nan"}
    assert all(failure["reason"] and failure["command"] for failure in found)
    flagged = {row["text"]: row["flagged"] for row in farm.records()}
    assert flagged["!black"] == "one flat colour"
    assert flagged["good 1"] is None
    assert farm.command("watch", job_id).returncode == 1


@pytest.mark.usefixtures("troubled")
def test_retry_sends_the_failures_back_as_a_new_run(farm, finished: Callable[..., JobStatus]) -> None:
    farm.start_worker()
    job_id = farm.submit(["good", "!raise"])
    finished(job_id)
    done = farm.command("retry", job_id, "--wait")
    assert "1 image sent back" in done.stdout
    assert done.returncode == 1
    status = farm.status(job_id)
    assert (status.run, status.done, status.failed, status.left) == (2, 1, 1, 0)
    assert len(farm.records()) == 1


@pytest.mark.usefixtures("troubled")
def test_max_failures_stops_a_job(farm, finished: Callable[..., JobStatus]) -> None:
    farm.start_worker()
    job_id = farm.submit([f"!raise {n}" for n in range(64)], max_failures=3, shard_size=2)
    status = finished(job_id)
    assert status.outcome == "stopped"
    assert 3 <= status.failed < 64
    assert json.loads((farm.output / "job.json").read_text())["outcome"] == "stopped"


def test_deleting_the_queue_in_the_middle_costs_no_image(
    farm, finished: Callable[..., JobStatus], wait_until: WaitUntil
) -> None:
    farm.start_worker(instant_seconds=0.1)
    job_id = farm.submit(96, shard_size=4)
    wait_until(lambda: farm.status(job_id).done >= 8, "the job is under way")
    farm.client.delete("imagemill", "unacked", "unacked_index")
    finished(job_id)
    farm.check_exact(job_id, 96)


def test_pause_cancel_and_priority_act_at_the_next_claim(
    farm, finished: Callable[..., JobStatus], wait_until: WaitUntil
) -> None:
    farm.start_worker("w1", "--concurrency", "1", instant_seconds=0.1)
    slow = farm.submit(400, name="slow", output=str(farm.folder / "slow"))
    wait_until(lambda: farm.status(slow).done, "the first job is under way")
    assert farm.command("pause", slow).returncode == 0
    wait_until(lambda: farm.status(slow).shards_leased == 0, "what was leased is done")
    paused_at = farm.status(slow).done
    urgent = farm.submit(8, name="urgent", output=str(farm.folder / "urgent"), priority=0)
    finished(urgent)
    assert farm.status(slow).done == paused_at
    assert farm.command("resume", slow).returncode == 0
    wait_until(lambda: farm.status(slow).done > paused_at, "the paused job goes on")
    assert farm.command("cancel", slow).returncode == 0
    status = finished(slow)
    assert status.outcome == "cancelled"
    assert 0 < status.left < 400
    again = farm.submit(400, name="slow", output=str(farm.folder / "slow"))
    assert farm.status(again).held >= paused_at
    urgent_again = farm.submit(9, name="urgent", output=str(farm.folder / "urgent"), priority=0)
    finished(urgent_again)
    assert farm.status(again).state != "finished"


def test_a_worker_that_may_not_write_there_refuses_and_the_waiter_is_told(farm) -> None:
    farm.start_worker(output_root=farm.folder / "elsewhere")
    done = farm.command("submit", farm.manifest(4), "--wait")
    assert done.returncode == 2
    assert "IMAGEMILL_OUTPUT_ROOT" in done.stderr
    assert "Traceback" not in done.stderr
