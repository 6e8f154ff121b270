"""A shard that is lost, cancelled, given back, refused or found committed: what is finished stays."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from jobs.errors import LeaseLost, ModelError
from jobs.ledger import redis_keys
from jobs.ledger.job import WorkerState
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from tests.waiting import LONGEST
from tests.worker.shard.bench import (
    SLOTS,
    Bench,
    Wait,
    failing,
    lines,
)
from worker.lease.lease import Lease
from worker.shard import shard_run
from worker.shard.shard_run import ShardRun
from worker.shard.store import ShardStore


def test_a_shard_that_another_attempt_committed_is_only_recorded(bench: Bench) -> None:
    bench.submit(lines(4))
    other = bench.other_attempt(0, 1, 3)
    failure = Failure(
        shard=0, position=2, entry=bench.entries[2], reason="black", job_id="cats-1", command="none"
    )
    assert other.commit([failure])
    report = bench.run()
    assert (report.ended, report.failed) == ("found committed", 1)
    assert bench.painter.seen == []
    assert bench.done() == {100, 101, 103}
    failures = bench.ledger.failures(bench.job_id)
    assert list(failures) == [102]
    assert failures[102] == {
        "shard": 0,
        "position": 2,
        "image_id": bench.entries[2].request.image_id,
        "reason": "black",
    }
    assert bench.status().state == "finishing"


def test_a_shard_committed_by_another_while_this_one_renders_counts_once(bench: Bench) -> None:
    bench.submit(lines(8))
    claim = bench.claim()
    running = bench.begin_until(4, claim)
    assert bench.other_attempt(4, 5, 6, 7).commit([])
    bench.painter.allowed.release(10)
    assert running.report().ended == "lost"
    bench.ledger.release(claim)
    assert bench.run().ended == "found committed"
    bench.check_committed(8)
    status = bench.status()
    assert (status.done, status.left, status.state) == (8, 0, "finishing")


def test_an_attempt_that_lost_its_lease_does_not_take_a_newer_jobs_shard_for_a_strangers(
    bench: Bench,
) -> None:
    bench.submit(lines(4, p0={"prompt": "of another job"}))
    assert bench.other_attempt(0, 1, 2, 3).commit([])
    bench.client.flushall()
    bench.submit(lines(4))
    assert bench.run(claim := bench.claim()).ended == "refused"
    bench.ledger.control(bench.job_id, "resume")
    assert bench.claim("w2") != claim
    assert bench.run(claim).ended == "lost"
    assert bench.status().refusals == {}


def test_a_lost_lease_is_left_without_a_commit_and_without_touching_its_new_holder(bench: Bench) -> None:
    bench.submit(lines(8))
    claim = bench.claim()
    running = bench.begin_until(4, claim)
    bench.ledger.release(claim)
    taken = bench.claim("w2")
    assert running.report().ended == "lost"
    assert not bench.output.committed(0)
    assert bench.ledger.renew({taken: []}, 30) == ["held"]
    bench.painter.allowed.release(10)
    bench.engine.flush(5)
    status = bench.status()
    assert (status.done, status.workers) == (4, ["w2"])
    assert len(bench.painter.seen) <= 8


def test_a_cancelled_job_gets_its_shard_back_and_keeps_what_was_finished(
    bench: Bench, wait_until: Wait
) -> None:
    bench.submit(lines(12))
    running = bench.begin_until(4)
    bench.ledger.control(bench.job_id, "cancel")
    report = running.report()
    assert (report.ended, report.rendered) == ("cancelled", 4)
    status = bench.status()
    assert (status.state, status.ending, status.shards_leased, status.done) == (
        "finishing",
        "cancelled",
        0,
        4,
    )
    assert not bench.output.committed(0)
    assert bench.saved() == 4
    bench.painter.allowed.release(10)
    wait_until(lambda: bench.saved() == 8, "the micro-batch that was under way is saved too")
    assert len(bench.painter.seen) == 8


@pytest.mark.parametrize("further", [["ghost", "/x", "1"], ["controlnet", "/x", "1", "more"]])
def test_a_job_with_a_further_model_of_another_version_is_refused_with_the_reason(
    bench: Bench, further: list[str]
) -> None:
    bench.spec = dataclasses.replace(bench.spec, further_models=[further])
    bench.submit(lines(2))
    assert bench.run().ended == "refused"
    assert bench.painter.seen == []
    [(worker, reason)] = bench.status().refusals.items()
    assert worker == "w1"
    assert reason.startswith(f"further_models: {json.dumps(further)}: this imagemill loads controlnet")
    assert "start workers of the version that submitted the job" in reason


def test_a_worker_that_stops_waits_for_the_pictures_that_are_being_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, gate, save = threading.Event(), threading.Event(), ShardStore.save

    def slow(*arguments: Any) -> None:
        writing.set()
        gate.wait(LONGEST)
        save(*arguments)

    monkeypatch.setattr(ShardStore, "save", slow)
    bench.submit(lines(8))
    bench.painter.hold_after(1)
    running = bench.begin()
    assert writing.wait(LONGEST)
    bench.stop_engine()
    threading.Timer(0.5, gate.set).start()
    report = running.report()
    assert (report.ended, report.rendered) == ("released", 4)
    assert (bench.status().done, bench.saved()) == (4, 4)


def test_a_worker_that_stops_gives_its_shard_back_and_the_next_adopts_what_is_finished(bench: Bench) -> None:
    bench.submit(lines(12))
    running = bench.begin_until(8)
    bench.stop_engine()
    report = running.report()
    assert (report.ended, report.rendered) == ("released", 8)
    status = bench.status()
    assert (status.shards_ready, status.shards_leased, status.done) == (1, 0, 8)
    assert bench.saved() == 8
    bench.engine.close()
    bench.start_engine()
    report = bench.run()
    assert (report.ended, report.rendered, report.adopted) == ("committed", 4, 8)
    assert len(bench.painter.seen) == 4
    bench.check_committed(12)


def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(bench: Bench) -> None:
    bench.load_error = ModelError("m: not there")
    bench.submit(lines(5))
    assert bench.run().ended == "refused"
    status = bench.status()
    assert (status.refusals, status.shards_ready, status.failed) == ({"w1": "m: not there"}, 1, 0)
    assert bench.ledger.claim("w1", WorkerState(idle_ms=9000), lease=1) is None


def test_a_job_of_mode_exact_is_refused_where_bytes_follow_the_neighbours_and_fast_is_rendered(
    bench: Bench,
) -> None:
    bench.painter.batching = "fast"
    bench.submit(lines(5))
    assert bench.run().ended == "refused"
    status = bench.status()
    assert list(status.refusals) == ["w1"]
    assert "m gives a picture other bytes beside other images" in status.refusals["w1"]
    assert status.refusals["w1"].endswith("cancel the job, and submit it with `mode: fast`")
    assert (status.shards_ready, status.failed, bench.painter.seen) == (1, 0, [])
    bench.spec = dataclasses.replace(bench.spec, mode="fast")
    assert bench.run(bench.claim("w2")).ended == "committed"
    bench.check_committed(5)
    assert {record["rendered_mode"] for record in bench.output.records(0)} == {"fast"}


def test_an_output_outside_the_workers_root_is_refused_and_untouched(bench: Bench, tmp_path: Path) -> None:
    bench.submit(lines(2))
    bench.root = tmp_path / "elsewhere"
    assert bench.run().ended == "refused"
    assert "IMAGEMILL_OUTPUT_ROOT" in bench.status().refusals["w1"]
    assert list(bench.output.spool.iterdir()) == []


def test_a_link_put_in_for_the_spool_after_the_output_was_looked_at_gets_no_picture(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(lines(2))
    bench.root, outside = bench.output.path, tmp_path / "outside"
    outside.mkdir()
    look = shard_run.check_output_within

    def look_too_early(output: Output, root: Path) -> None:
        look(output, root)
        output.spool.rmdir()
        output.spool.symlink_to(outside)

    monkeypatch.setattr(shard_run, "check_output_within", look_too_early)
    assert bench.run().ended == "refused"
    assert "IMAGEMILL_OUTPUT_ROOT" in bench.status().refusals["w1"]
    assert bench.painter.seen == []
    assert [file for file in outside.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("method", ["adopt", "save", "commit"])
def test_an_output_that_this_worker_cannot_write_is_refused_with_the_systems_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(ShardStore, method, failing(errno.EACCES))
    bench.submit(lines(6))
    assert bench.run().ended == "refused"
    status = bench.status()
    assert "Permission denied" in status.refusals["w1"]
    assert str(bench.output.path) in status.refusals["w1"]
    assert "[Errno" not in status.refusals["w1"]
    assert status.refusals["w1"].endswith("make it readable and writable for this user")
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


def test_an_output_that_was_moved_away_is_refused_with_the_way_out_and_goes_on_once_it_is_back(
    bench: Bench,
) -> None:
    bench.submit(lines(6))
    assert bench.output.path is not None
    away = bench.output.path.with_name("moved away")
    claim = bench.claim()
    bench.output.path.rename(away)
    assert bench.run(claim).ended == "refused"
    assert bench.status().refusals["w1"] == (
        f"output {bench.output.label}: this folder is not there any more: put it back, or cancel the job and "
        "submit its manifest again"
    )
    away.rename(bench.output.path)
    bench.ledger.control(bench.job_id, "resume")
    assert bench.run().ended == "committed"
    bench.check_committed(6)


def test_a_tar_that_another_attempt_committed_before_it_died_is_recorded(
    tar_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar_bench.submit(lines(3))
    link = os.link

    def die_before_the_parquet(source: str, target: str) -> None:
        if str(target).endswith(".parquet"):
            raise KeyboardInterrupt
        link(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", die_before_the_parquet)
        with pytest.raises(KeyboardInterrupt):
            tar_bench.other_attempt(0, 1, 2).commit([])
    report = tar_bench.run()
    assert (report.ended, report.rendered, tar_bench.status().done) == ("found committed", 0, 3)
    assert not (tar_bench.output.path / "00000.parquet").exists()


def test_a_worker_that_cannot_write_parquet_refuses_the_job_before_it_renders(
    tar_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar_bench.submit(lines(3))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tar_bench.run().ended == "refused"
    assert "pip install 'imagemill[parquet]'" in tar_bench.status().refusals["w1"]
    assert tar_bench.painter.seen == []


def test_a_job_that_is_gone_from_redis_is_left_without_a_word_to_anybody(bench: Bench) -> None:
    bench.submit(lines(2))
    held = bench.claim()
    bench.client.flushall()
    assert bench.run(held).ended == "lost"
    assert bench.client.keys("imagemill:job:*") == []
    assert not bench.output.committed(0)


@pytest.mark.parametrize("end", ["cancel", "stop", "lose", "raise"])
def test_slots_that_do_not_fit_are_reported_however_the_shard_ends(bench: Bench, end: str) -> None:
    bench.submit(lines(6))
    bench.painter.most_slots = 2
    claim = bench.claim()
    running = bench.begin_until(2, claim, batches=1)
    if end == "cancel":
        bench.ledger.control(bench.job_id, "cancel")
    elif end == "stop":
        bench.stop_engine()
    elif end == "lose":
        bench.ledger.release(claim)
    else:
        bench.client.execute_command("ACL", "SETUSER", "default", "-setbit")
        bench.painter.allowed.release(10)
    ended = running.report().ended
    bench.client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert ended == {"cancel": "cancelled", "stop": "released", "lose": "lost", "raise": "refused"}[end]
    [slots] = bench.client.hvals(redis_keys.job(bench.job_id, "rows"))
    assert int(slots) == (SLOTS if end == "lose" else 2)


def test_a_shard_that_cannot_be_read_is_set_aside_and_the_job_ends(bench: Bench) -> None:
    bench.submit(lines(2))
    bench.client.hset(redis_keys.job(bench.job_id, "shards"), "0", b"torn")
    claim = bench.claim()
    bench.heartbeat.hold(claim)
    lease = Lease(claim, ledger=bench.ledger, heartbeat=bench.heartbeat, worker="w1", stop=bench.stop)
    assert lease.carry_out(ShardRun(lease, bench.spec, bench.workplace()))["ended"] == "set aside"
    status = bench.status()
    assert (status.state, status.outcome, status.left) == ("finishing", "failures", 2)
    assert "cannot be read" in status.broken[0]
    assert status.refusals == {}


def test_a_shard_of_another_wire_version_is_refused_by_this_worker_alone(bench: Bench) -> None:
    bench.submit(lines(2))
    blob = zstandard.ZstdCompressor().compress(json.dumps({"v": 99, "indices": 0, "rows": []}).encode())
    bench.client.hset(redis_keys.job(bench.job_id, "shards"), "0", blob)
    assert bench.run().ended == "refused"
    assert "wire version 99" in bench.status().refusals["w1"]
    assert (bench.status().shards_ready, bench.status().broken) == (1, {})


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_an_attempt_frozen_before_its_commit_adds_nothing_to_a_later_job(
    bench: Bench, layout: LayoutName
) -> None:
    bench.spec = dataclasses.replace(bench.spec, layout=layout)
    bench.submit(lines(3))
    frozen = bench.other_attempt(0, 1, 2)
    bench.output.close_attempts()
    with pytest.raises(LeaseLost):
        frozen.commit([])
    assert bench.output.shards() == []
    bench.output.close_attempts()
    report = bench.run()
    assert (report.ended, report.adopted, report.rendered) == ("committed", 3, 0)
