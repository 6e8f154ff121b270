"""`imagemill recover` after a real Redis lost everything: the same job, every image once, in both layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from jobs.ledger.job import JobStatus
from jobs.output.output import Output
from producer.doctor.checkup import check_output
from tests.waiting import WaitUntil

Finish = Callable[..., JobStatus]


def lose(farm: Any) -> None:
    """Every worker is killed with what it had in hand, and Redis comes back empty."""
    farm.stop()
    farm.workers.clear()
    farm.client.flushall()


def recovered(farm: Any) -> dict[str, Any]:
    done = farm.command("recover", "cats.yaml", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def records(farm: Any) -> list[dict[str, Any]]:
    output = Output(farm.output)
    return [record for shard in output.shards() for record in output.records(shard)]


def check_exact(farm: Any, job_id: str, images: int, failed: int = 0) -> None:
    """Files, metadata, bits and counters agree: every image once."""
    found = check_output(Output(farm.output))
    assert (found.problems, found.images, found.failed) == ([], images, failed)
    assert len({record["image_id"] for record in records(farm)}) == len(records(farm)) == images
    assert {record["job_id"] for record in records(farm)} == {job_id}
    status = farm.status(job_id)
    assert (status.done, status.failed, status.left, status.total) == (images, failed, 0, images + failed)
    assert farm.ledger.done_bits(job_id).count() == images
    events = [event[b"job"].decode() for _, event in farm.client.xrange("imagemill:events")]
    assert events == [job_id]


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_job_lost_half_way_goes_on_under_its_id_and_renders_nothing_twice(
    farm: Any, finished: Finish, wait_until: WaitUntil, layout: str
) -> None:
    farm.start_worker(instant_seconds=0.5)
    job_id = farm.submit(96, shard_size=16, layout=layout)
    output, spool = Output(farm.output), farm.output / ".imagemill" / "spool"

    def in_spool() -> list[int]:
        """Finished images of each shard that is not committed yet."""
        shards = [int(folder.name) for folder in spool.iterdir()]
        return [
            len(list(spool.glob(f"{shard:05d}/*/metadata/*.json")))
            for shard in shards
            if not output.committed(shard)
        ]

    wait_until(lambda: len(output.shards()) >= 2, "some shards are committed")
    wait_until(lambda: any(0 < images < 16 for images in in_spool()), "another is half done")
    lose(farm)
    committed = {file: file.stat().st_ino for file in farm.output.glob("[0-9]*")}
    waiting = sum(in_spool())
    there = len(records(farm))
    found = recovered(farm)
    assert (found["job_id"], found["images"], found["done"], found["left"]) == (job_id, 96, there, 96 - there)
    status = json.loads(farm.command("status", job_id, "--json").stdout)
    assert (status["state"], status["total"], status["done"]) == ("sealed", 96, there)
    farm.start_worker("w2")
    watched = farm.command("watch", job_id)
    assert watched.stdout.splitlines()[-1].startswith(f"finished: 96 images in {farm.output}")
    check_exact(farm, job_id, 96)
    assert {file: file.stat().st_ino for file in committed} == committed
    assert sum(map(int, re.findall(r"(\d+) adopted", farm.log("w2")))) == waiting > 0
    report = json.loads((farm.output / "job.json").read_text())
    assert (report["job_id"], report["images"]["asked"], report["images"]["done"]) == (job_id, 96, 96)
    assert not spool.exists()


@pytest.mark.usefixtures("troubled")
def test_failures_and_doubts_are_put_back_and_retried(
    farm: Any, finished: Finish, wait_until: WaitUntil
) -> None:
    farm.start_worker()
    job_id = farm.submit(["a", "!raise", "!black", *(f"picture {n}" for n in range(21))])
    before = finished(job_id)
    assert (before.done, before.failed, before.flagged) == (23, 1, 1)
    failures = farm.ledger.failures(job_id)
    lose(farm)
    (farm.output / "job.json").unlink()
    (farm.output / "failures.jsonl").unlink()
    done = farm.command("recover", "cats.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{job_id}: 24 images, 23 done (1 flagged), 1 failed, 0 to render",
        "no worker is alive: start one with `imagemill-worker`; the jobs wait in Redis",
    ]
    assert farm.ledger.failures(job_id) == failures
    farm.start_worker("w2")
    status = finished(job_id)
    assert (status.outcome, status.flagged, status.images_per_second) == ("failures", 1, 0.0)
    check_exact(farm, job_id, 23, failed=1)
    report = json.loads((farm.output / "job.json").read_text())
    assert (report["outcome"], report["images"]["failed"]) == ("failures", 1)
    again = farm.command("retry", job_id, "--wait")
    assert f"{job_id}: 1 image sent back" in again.stdout
    status = farm.status(job_id)
    assert (status.state, status.done, status.failed) == ("finished", 23, 1)
    assert "1 failed" in farm.command("status", job_id).stdout


def test_recovering_twice_or_another_manifest_is_refused_and_changes_nothing(
    farm: Any, finished: Finish
) -> None:
    farm.start_worker()
    job_id = farm.submit(20)
    finished(job_id)
    lose(farm)
    farm.manifest(21)
    done = farm.command("recover", "cats.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cats.yaml: prompts: not as when cats-1 was submitted: put it back")
    assert farm.ledger.job_ids() == []
    farm.manifest(20)
    assert recovered(farm)["done"] == 20
    twice = farm.command("recover", "cats.yaml")
    assert (twice.returncode, twice.stdout) == (2, "")
    assert twice.stderr.startswith("error: cats-1 is not lost, this Redis holds it: ")
    farm.start_worker("w2")
    finished(job_id)
    check_exact(farm, job_id, 20)
    # Lost once more, and submitted instead: the next job has nothing to render.
    lose(farm)
    (submitted,) = json.loads(farm.command("submit", "cats.yaml", "--json").stdout)
    assert (submitted["job_id"], submitted["images"], submitted["held"]) == ("cats-2", 0, 20)
