"""A picture's bytes follow from its request alone: not from order, shards, workers, deaths or company."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from jobs.settings import Settings
from tests.mill import Mill
from tests.waiting import WaitUntil
from tests.warm_python import warm_painter
from worker.encode import read_request
from worker.render import render, reproduction_of

SLOTS = 16
SETTINGS = itertools.product(
    ("LMS", "DDIM", "Euler a", "DPM++ 2M Karras"),
    ({"guidance_scale": 7.5}, {"guidance_scale": 1.0}, {"guidance_scale": 3.0, "negative_prompt": "a box"}),
)
LINES: list[dict[str, Any]] = [
    {"prompt": f"a {colour} circle", "scheduler": scheduler, "num_inference_steps": steps, "seed": steps}
    | guidance
    for (scheduler, guidance), (colour, steps) in itertools.product(SETTINGS, (("red", 3), ("blue", 6)))
]
"""24 pictures: 4 schedulers, one of them stochastic, guided and not, of 3 and of 6 steps."""


@pytest.fixture(scope="module")
def mill(shared_farm: Any) -> Mill:
    """Two workers with 16 slots and leases of 2 seconds."""
    shared_farm.python = warm_painter
    for name in ("w1", "w2"):
        shared_farm.start_worker(name, "--concurrency", "1", batch_size=SLOTS, lease=2, device="cpu")
    return Mill(shared_farm)


@pytest.fixture(scope="module")
def whole(mill: Mill) -> dict[str, str]:
    """The files of a job of one shard, which one worker renders."""
    status = mill.wait(mill.start("whole", LINES, shard_size=len(LINES)))
    assert (status.outcome, status.done) == ("complete", len(LINES))
    hashes = mill.hashes("whole")
    assert len(set(hashes.values())) == len(LINES)
    assert {(record["rendered_rows"], record["rendered_mode"]) for _, record in mill.records("whole")} == {
        (SLOTS, "exact")
    }
    return hashes


@pytest.fixture
def one_thread() -> Iterator[Settings]:
    """A worker's settings in this process, whose threads are put back."""
    threads = torch.get_num_threads()
    yield Settings(torch_threads=1, device="cpu")
    torch.set_num_threads(threads)


def test_order_shards_and_the_number_of_workers_change_no_byte(mill: Mill, whole: dict[str, str]) -> None:
    shuffled = [LINES[index * 7 % len(LINES)] for index in range(len(LINES))]
    assert len({json.dumps(line) for line in shuffled}) == len(LINES)
    job_id = mill.start("shuffled", shuffled, shard_size=7)
    mill.wait(job_id)
    assert len(mill.farm.ledger.workers_of(job_id)) == 2
    assert mill.hashes("shuffled") == whole


def test_company_changes_no_byte(mill: Mill, whole: dict[str, str]) -> None:
    others = [line | {"seed": 99, "num_inference_steps": 5} for line in LINES[::3]]
    mill.wait(mill.start("company", [*others, *LINES[10:13]], shard_size=64))
    hashes = mill.hashes("company")
    assert len(hashes) == len(others) + 3
    assert len(hashes.items() & whole.items()) == 3


def test_a_death_in_the_middle_and_another_workers_hand_change_no_byte(
    mill: Mill, whole: dict[str, str], wait_until: WaitUntil
) -> None:
    job_id = mill.start("killed", LINES, shard_size=len(LINES))
    saved = mill.folder("killed") / ".imagemill" / "spool"
    wait_until(lambda: 0 < len(list(saved.glob("*/*/metadata/*.json"))) < len(LINES), "it is half done")
    [holder] = mill.farm.status(job_id).workers
    name = holder.partition("@")[2]
    supervisor = mill.farm.workers[name]
    supervisor.send_signal(signal.SIGSTOP)  # it would start the worker again, which may be first to go on
    try:
        os.kill(mill.farm.celery_pid(name), signal.SIGKILL)
        assert mill.farm.status(job_id).left > 0
        mill.wait(job_id)
    finally:
        supervisor.send_signal(signal.SIGCONT)
    assert len(mill.farm.ledger.workers_of(job_id)) == 2
    logs = mill.farm.log("w1") + mill.farm.log("w2")
    assert any(
        f"{job_id}" in line and "adopted" in line and " 0 adopted" not in line for line in logs.splitlines()
    ), logs
    assert mill.hashes("killed") == whole


def test_a_file_rendered_again_by_itself_has_its_own_bytes(
    mill: Mill, whole: dict[str, str], one_thread: Settings
) -> None:
    chosen = [file for file, record in mill.records("whole") if record["num_inference_steps"] == 3][::4]
    assert [read_request(file).scheduler for file in chosen] == ["LMS", "DDIM", "Euler a"]
    for file in chosen:
        again = reproduction_of(file, None)
        assert (again.slots, again.remarks) == (SLOTS, ())
        assert render(again, None, (), one_thread) == file.read_bytes(), again.request


def test_the_next_run_goes_on_with_the_outputs_slots_though_each_has_its_own_redis(farm: Any) -> None:
    for count, settings in ((2, {"batch_size": 6}), (5, {})):
        environment = farm.environment(**settings)
        del environment["IMAGEMILL_REDIS_URL"]
        done = farm.run_in(environment, "run", farm.manifest(count), "--gpus", "none")
        assert done.returncode == 0, done.stderr
    assert [record["rendered_rows"] for record in farm.records()] == [6] * 5, "never what is measured"


def test_mode_fast_finishes_and_is_reported_in_the_metadata(mill: Mill) -> None:
    status = mill.wait(mill.start("fast", LINES[:6], mode="fast"))
    assert (status.outcome, status.done) == ("complete", 6)
    found = [(record["rendered_mode"], record["rendered_rows"]) for _, record in mill.records("fast")]
    assert found == [("fast", SLOTS)] * 6
