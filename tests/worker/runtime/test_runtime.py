"""What a wake-up makes a worker process do, with a real ledger and the stand-in model."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.errors import LedgerUnavailable
from jobs.inputs.inputs import NO_INPUTS
from jobs.ledger import redis_keys
from jobs.output.output import Output
from jobs.settings import Settings
from producer.embedded_redis import EmbeddedRedis
from tests.waiting import LONGEST
from tests.worker.runtime.hired import BASE, LEASE, Hire, Wait
from worker.engine.renderer import Pipeline
from worker.lease import heartbeat
from worker.renderers.instant import InstantRenderer
from worker.renderers.load_renderer import load_renderer
from worker.renderers.loading import Loading


def test_wake_ups_render_the_shards_and_finish_the_job(hire: Hire) -> None:
    began, worker = time.monotonic(), hire(lease=60.0)
    job_id = worker.submit([3, 2])
    first, second, finish = worker.serve(), worker.serve(), worker.serve()
    # Each that left something behind sent the next wake-up, the last left nothing; the heartbeat may send one
    # in each of its rounds, a second apart from the first.
    assert 2 <= len(worker.wakes) <= 2 + 1 + int(time.monotonic() - began)
    assert first is not None and second is not None
    assert [(done["shard"], done["ended"], done["rendered"]) for done in (first, second)] == [
        (0, "committed", 3),
        (1, "committed", 2),
    ]
    json.dumps([first, second, finish])
    assert finish == {"job": job_id, "ended": "finished"}
    assert worker.announced == [(job_id, "0"), (job_id, "1"), (job_id, "finish")]
    status = worker.status(job_id)
    assert (status.state, status.outcome, status.done) == ("finished", "complete", 5)
    report = json.loads((worker.folder / "cats" / "job.json").read_bytes())
    assert (report["job_id"], report["outcome"], report["images"]["done"]) == (job_id, "complete", 5)
    assert worker.serve() is None


def test_a_worker_that_is_told_to_stop_claims_nothing_more(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1])
    worker.runtime.stop()
    assert worker.serve() is None
    assert worker.status(job_id).shards_ready == 1


def test_a_wake_up_while_redis_is_away_does_nothing_and_raises_nothing(
    hire: Hire, redis_server: EmbeddedRedis
) -> None:
    worker = hire()
    worker.submit([1])
    redis_server.stop()
    assert worker.serve() is None


def test_a_wake_up_that_cannot_be_sent_costs_the_shard_nothing(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    job_id = worker.submit([1, 1])

    def away(_count: int) -> None:
        raise LedgerUnavailable("Redis does not answer")

    monkeypatch.setattr(worker, "wake", away)
    done = worker.serve()
    assert done is not None and done["ended"] == "committed"
    assert worker.status(job_id).done == 1


def test_a_worker_takes_only_the_models_it_was_started_for(hire: Hire) -> None:
    worker = hire(models=("other",))
    worker.submit([1])
    assert worker.serve() is None


def test_two_task_threads_render_two_shards_at_a_time(hire: Hire, wait_until: Wait) -> None:
    worker = hire(instant_seconds=0.3)
    job_id = worker.submit([4, 4])
    threads = [threading.Thread(target=worker.serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: worker.status(job_id).shards_leased == 2, "both are claimed")
    wait_until(lambda: worker.runtime.facts()["busy"] == 2, "the heartbeat would say so")
    for thread in threads:
        thread.join(LONGEST)
    status = worker.status(job_id)
    assert (status.done, status.state) == (8, "finishing")
    facts = worker.runtime.facts()
    assert (facts["busy"], facts["slots"], facts["images"], facts["notice"]) == (0, 2, 8, "")
    assert (facts["batch_size"], facts["device"]) == (4, "cpu")
    if Path("/proc/self/statm").exists():
        assert 10_000_000 < int(facts["memory_used"]) < psutil.virtual_memory().total
    assert json.loads(str(facts["pipeline"])) == ["instant", "instant-1", "auto"]


def test_an_idle_worker_is_woken_by_its_own_keeper_with_no_message_in_the_queue(
    hire: Hire, wait_until: Wait
) -> None:
    worker = hire()
    worker.submit([1, 1, 1])
    wait_until(lambda: worker.wakes, "the heartbeat tops up")
    # Three shards wait, but it has two task slots.
    assert set(worker.wakes) == {2}


def test_a_model_that_is_not_there_is_refused_and_another_job_goes_on(hire: Hire) -> None:
    worker = hire()
    refused = worker.submit([2], name="dogs", model=str(worker.folder / "no-model"))
    done = worker.serve()
    assert done is not None and done["ended"] == "refused"
    assert "no model_index.json there" in worker.status(refused).refusals["w1"]
    job_id = worker.submit([2])
    done = worker.serve()
    assert done is not None and (done["job"], done["ended"]) == (job_id, "committed")


def test_a_restarted_worker_takes_back_what_it_refused(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1], name="dogs", model=str(worker.folder / "no-model"))
    worker.serve()
    assert worker.status(job_id).refusals
    hire()
    assert not worker.status(job_id).refusals


def test_without_an_output_root_it_writes_below_the_folder_where_it_was_started_alone(
    hire: Hire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dogs").mkdir()
    monkeypatch.chdir(tmp_path / "dogs")
    worker = hire(output_root=None)
    refused, taken = worker.submit([2]), worker.submit([2], name="dogs")
    ends = [worker.serve(), worker.serve()]
    assert [(done["job"], done["ended"]) for done in ends if done is not None] == [
        (refused, "refused"),
        (taken, "committed"),
    ]
    assert f"IMAGEMILL_OUTPUT_ROOT = {tmp_path / 'dogs'}" in worker.status(refused).refusals["w1"]
    assert list((tmp_path / "cats" / ".imagemill" / "spool").iterdir()) == []


def test_a_job_that_another_version_submitted_is_refused_with_the_reason(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1])
    key = redis_keys.job(job_id, "spec")
    spec = json.loads(worker.ledger.client.get(key))
    worker.ledger.client.set(key, json.dumps(spec | {"colour": "red"}))
    assert worker.serve() is None
    status = worker.status(job_id)
    assert (status.shards_ready, status.shards_leased) == (1, 0)
    assert "not as this imagemill writes them" in status.refusals["w1"]
    assert "colour" in status.refusals["w1"]


def test_a_shard_whose_number_is_none_holds_nothing_up(hire: Hire) -> None:
    worker = hire()
    job_id = worker.submit([1])
    client, shards = worker.ledger.client, redis_keys.job(job_id, "shards")
    client.hset(shards, "twelve", client.hget(shards, "0"))
    client.lpush(redis_keys.job(job_id, "ready"), "twelve")
    ends = [worker.serve(), worker.serve()]
    assert [done["ended"] for done in ends if done is not None] == ["committed", "finished"]
    status = worker.status(job_id)
    assert (status.done, status.shards_leased, status.refusals) == (1, 0, {})


def test_what_enters_the_slots_is_reported_to_the_ledger_before_the_keepers_next_round(
    hire: Hire, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    # After the first round, which has nothing to renew, none comes while the test runs.
    monkeypatch.setattr(heartbeat, "ROUND", LEASE)
    worker = hire(instant_seconds=0.5, lease=LEASE)
    wait_until(worker.ledger.workers, "the first round is over")
    job_id = worker.submit([4])
    rendering = threading.Thread(target=worker.serve)
    rendering.start()

    def in_slots() -> list[int]:
        lease = worker.ledger.client.hget(redis_keys.job(job_id, "leased"), "0")
        return sorted(json.loads(lease).get("rows", [])) if lease else []

    wait_until(lambda: in_slots() == [0, 1, 2, 3], "the lease lists what is in the slots")
    rendering.join()


def test_sigterms_stop_keeps_what_is_finished_and_closes_everything(hire: Hire, wait_until: Wait) -> None:
    worker = hire(instant_seconds=0.2)
    job_id = worker.submit([40])
    ends: list[dict[str, Any] | None] = []
    thread = threading.Thread(target=lambda: ends.append(worker.serve()))
    thread.start()
    wait_until(lambda: worker.status(job_id).done >= 4, "a micro-batch is done")
    worker.runtime.stop()
    thread.join(LONGEST)
    assert not thread.is_alive()
    assert ends[0] is not None and ends[0]["ended"] == "released"
    worker.runtime.close()
    status = worker.status(job_id)
    assert (status.shards_ready, status.shards_leased) == (1, 0)
    saved = list(Output(worker.folder / "cats").spool.glob("*/*/metadata/*.json"))
    assert len(saved) == status.done
    assert worker.ledger.workers() == {}


def test_the_stand_in_is_loaded_with_the_settings_pause() -> None:
    renderer = load_renderer(Pipeline("instant", "instant-1", "auto"), Settings(instant_seconds=0.2))
    assert isinstance(renderer, InstantRenderer)
    began = time.monotonic()
    renderer.render_alone(BASE, NO_INPUTS, lambda: False)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("slots", [4, None])
def test_pictures_have_the_settings_slots_or_those_that_were_measured(hire: Hire, slots: int | None) -> None:
    worker = hire(batch_size=slots)
    worker.submit([3])
    worker.serve()
    measured = InstantRenderer(0).measure_slots(8, 8)
    found = {
        (record["rendered_rows"], record["rendered_mode"])
        for record in Output(worker.folder / "cats").records(0)
    }
    assert found == {(measured if slots is None else slots, "exact")}


def test_a_job_begun_on_another_kind_of_device_is_refused_until_hardware_may_be_mixed(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = hire()
    job_id = worker.submit([1, 1, 1])
    worker.serve()
    monkeypatch.setattr("worker.runtime.load_renderer", _elsewhere)
    done = hire().serve()
    assert done is not None and done["ended"] == "refused"
    refusal = worker.status(job_id).refusals["w1"]
    assert all(word in refusal for word in ("cpu in fp32", "elsewhere in fp32", "--mixed-hardware"))
    done = hire(mixed_hardware=True).serve()
    assert done is not None and done["ended"] == "committed"
    devices = {
        record["rendered_device"]
        for number in (0, 1)
        for record in Output(worker.folder / "cats").records(number)
    }
    assert devices == {"cpu", "elsewhere"}


def test_what_is_loaded_is_told_by_the_ledger_as_long_as_it_lasts(
    hire: Hire, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    loaded = threading.Event()

    def slowly(pipeline: Pipeline, _settings: Settings, loading: Loading) -> InstantRenderer:
        with loading.stage("downloading", pipeline.model, files=12, size=23_800_000_000):
            loading.advance(files=3, size=4_100_000_000)
            loaded.wait(LONGEST)
            return InstantRenderer(0)

    monkeypatch.setattr("worker.runtime.load_renderer", slowly)
    worker = hire()
    job_id = worker.submit([1])
    serving = threading.Thread(target=worker.serve)
    serving.start()
    wait_until(lambda: worker.status(job_id).loading, "it is told")
    told = worker.status(job_id).loading["w1"]
    loaded.set()
    serving.join()
    assert told.startswith("downloading instant: 3 of 12 files, 4.1 of 23.8 GB, ")
    wait_until(lambda: worker.ledger.workers()["w1"]["loading"] == "", "nothing is loaded any more")


def _elsewhere(pipeline: Pipeline, settings: Settings, loading: Loading) -> InstantRenderer:
    renderer = InstantRenderer(0)
    renderer.device = "elsewhere"
    return renderer
