"""A worker finishes a job whose images are all rendered, once and with nothing half."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.entry import Entry
from jobs.errors import OutputError
from jobs.failpoints import Hook
from jobs.ledger import redis_keys
from jobs.output.output import Output
from tests.waiting import LONGEST
from tests.worker.runtime.hired import BASE, LEASE, Hire, Wait
from worker.finish import finish_run
from worker.lease import heartbeat
from worker.shard.store import ShardStore


def test_a_job_that_cannot_be_finished_here_is_refused_with_the_reason(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()

    def damaged(*_arguments: object, **_options: object) -> None:
        raise OutputError("00000/metadata.jsonl:1: not a line of JSON")

    monkeypatch.setattr(finish_run, "finish_output", damaged)
    assert worker.serve() == {"job": job_id, "ended": "refused"}
    status = worker.status(job_id)
    assert (status.state, status.shards_leased) == ("finishing", 0)
    assert status.refusals == {"w1": "00000/metadata.jsonl:1: not a line of JSON"}
    assert worker.serve() is None


def test_a_job_turned_to_another_output_when_all_is_rendered_is_not_finished_there(hire: Hire) -> None:
    rendered = hire()
    job_id = rendered.submit([2])
    rendered.serve()
    before = sorted((rendered.folder / "cats").rglob("*"))
    narrower = hire(output_root=rendered.folder / "dogs")
    assert narrower.serve() == {"job": job_id, "ended": "refused"}
    assert "IMAGEMILL_OUTPUT_ROOT" in narrower.status(job_id).refusals["w1"]
    assert sorted((rendered.folder / "cats").rglob("*")) == before


def test_a_finishing_whose_lease_was_lost_while_it_slept_writes_no_report(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What its heartbeat knows is from before its sleep.
    monkeypatch.setattr(heartbeat, "ROUND", LEASE)
    worker = hire(lease=LEASE)
    job_id = worker.submit([1])
    worker.serve()
    finish = finish_run.finish_output

    def asleep(*arguments: Any, **options: Any) -> None:
        worker.dies(job_id, "finish")
        assert worker.claim("w2").kind == "finish"
        return finish(*arguments, **options)

    monkeypatch.setattr(finish_run, "finish_output", asleep)
    assert worker.serve() == {"job": job_id, "ended": "lost"}
    assert not (worker.folder / "cats" / "job.json").exists()
    assert worker.status(job_id).state == "finishing"


def test_who_sleeps_before_its_reports_rename_writes_none_once_another_job_has_begun(
    hire: Hire, arm_failpoints: Callable[[Hook], None]
) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()

    def asleep(name: str, path: Path | None = None) -> None:
        if name == "before rename" and path is not None and path.name == "job.json":
            Output(worker.folder / "cats").close_attempts()

    arm_failpoints(asleep)
    assert worker.serve() == {"job": job_id, "ended": "lost"}
    assert not (worker.folder / "cats" / "job.json").exists()


def test_a_finishing_that_workers_died_of_is_done_without_a_preview(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()
    for _ in range(3):
        assert worker.claim("w2").kind == "finish"
        worker.dies(job_id, "finish")
    assert worker.serve() == {"job": job_id, "ended": "finished"}
    assert json.loads((worker.folder / "cats" / "job.json").read_bytes())["outcome"] == "complete"
    assert not (worker.folder / "cats" / "preview.jpg").exists()


def test_job_json_names_a_shard_that_was_set_aside(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([2, 2])
    worker.ledger.client.hset(redis_keys.job(job_id, "shards"), "0", b"torn")
    ends = [worker.serve(), worker.serve(), worker.serve()]
    assert [done["ended"] for done in ends if done is not None] == ["set aside", "committed", "finished"]
    report = json.loads((worker.folder / "cats" / "job.json").read_bytes())
    assert report["outcome"] == "failures"
    assert report["set_aside"] == {"0": worker.status(job_id).broken[0]}
    assert "cannot be read" in report["set_aside"]["0"]


def test_a_full_disk_delays_the_finish_and_refuses_nothing(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()
    finish, met = finish_run.finish_output, []

    def full_at_first(*arguments: Any, **options: Any) -> int:
        if not met:
            met.append(worker.runtime.facts())
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        met.append(worker.runtime.facts())
        return finish(*arguments, **options)

    monkeypatch.setattr(finish_run, "finish_output", full_at_first)
    assert worker.serve() == {"job": job_id, "ended": "finished"}
    assert "no space left" in str(met[1]["notice"])
    assert worker.status(job_id).state == "finished"


def test_stopped_while_the_disk_is_too_full_to_finish_it_gives_the_finishing_back(
    hire: Hire, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(finish_run, "finish_output", full)
    ends: list[dict[str, Any] | None] = []
    thread = threading.Thread(target=lambda: ends.append(worker.serve()))
    thread.start()
    wait_until(lambda: worker.runtime.facts()["notice"], "it waits for space")
    worker.runtime.stop()
    thread.join(LONGEST)
    assert ends == [{"job": job_id, "ended": "released"}]
    status = worker.status(job_id)
    assert (status.state, status.shards_leased, status.refusals) == ("finishing", 0, {})


def test_the_store_of_a_late_attempt_does_not_change_a_finished_job(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.serve()
    worker.serve()
    before = sorted(path.name for path in (worker.folder / "cats" / "00000").iterdir())
    entry = Entry.of(request=dataclasses.replace(BASE, prompt="cats 0"))
    late = ShardStore(
        Output(worker.folder / "cats"), 0, "late", [entry], job_id=job_id, column_names=[], adopt_below=0
    )
    assert late.commit([]) is False
    assert sorted(path.name for path in (worker.folder / "cats" / "00000").iterdir()) == before
