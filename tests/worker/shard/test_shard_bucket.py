"""A shard whose output, and the files that its requests name, lie in a bucket."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.inputs.latents import write_input
from jobs.ledger.job import JobSpec
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.output import INPUTS, Output
from producer.embedded_redis import EmbeddedRedis
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind
from tests.worker.shard.bench import Bench, Wait, lines
from worker.render_inputs import inputs_of
from worker.shard.workplace import Workplace

READS = frozenset({Kind.GET, Kind.HEAD})
LATENTS = np.arange(4, dtype="float32").reshape(4, 1, 1)


class BucketBench(Bench):
    """A bench whose output is a place in a bucket."""

    def workplace(self) -> Workplace:
        return dataclasses.replace(super().workplace(), root=self.output.label)


@pytest.fixture
def bench(
    redis_server: EmbeddedRedis,
    tmp_path: Path,
    job_spec: Callable[..., JobSpec],
    wait_until: Wait,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[BucketBench]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=5, repeated=1, pauses=(0.05,)))
    bench = BucketBench(redis_server.url, tmp_path, job_spec, wait_until)
    bench.output = Output.at(f"s3://{bucket}/out")
    bench.output.prepare()
    bench.spec = dataclasses.replace(bench.spec, output=bench.output.label, layout="webdataset")
    yield bench
    bench.close()


@pytest.fixture
def sha(bench: BucketBench, tmp_path: Path) -> str:
    """Initial latents that the output keeps."""
    sha = write_input(tmp_path / "kept", LATENTS)
    bench.output.store.replace(f"{INPUTS}/{sha}.npy", (tmp_path / "kept" / f"{sha}.npy").read_bytes())
    return sha


def test_files_that_the_bucket_keeps_reach_the_model(bench: BucketBench, sha: str) -> None:
    bench.submit(lines(6, p2={"init_latents": sha}))
    assert bench.run().ended == "committed"
    bench.check_committed(6)
    [given] = [one for one in bench.painter.latents if one is not None]
    assert np.array_equal(given, LATENTS)


def test_a_bucket_that_gives_no_answer_for_a_while_fails_no_image_and_refuses_no_job(
    bench: BucketBench, sha: str, object_store: BreakableStore, wait_until: Wait
) -> None:
    bench.submit(lines(12, p2={"init_latents": sha}, p9={"init_latents": sha}))
    bench.painter.hold_after(0)
    running = bench.begin()
    wait_until(bench.engine.in_flight, "the shard is ordered")
    object_store.order(Fault(Action.CUT_BEFORE))
    bench.painter.allowed.release(1000)
    wait_until(lambda: "cannot be reached" in bench.space.notice, "the run waits for the bucket")
    object_store.withdraw()
    report = running.report()
    assert (report.ended, report.rendered, report.failed) == ("committed", 12, 0)
    bench.check_committed(12)


@pytest.mark.parametrize(("end", "ended"), [("stop", "released"), ("cancel", "cancelled")])
def test_it_ends_while_it_waits_for_a_bucket(
    bench: BucketBench,
    sha: str,
    object_store: BreakableStore,
    wait_until: Wait,
    end: str,
    ended: str,
) -> None:
    bench.submit(lines(4, p2={"init_latents": sha}))
    bench.painter.hold_after(0)
    running = bench.begin()
    wait_until(bench.engine.in_flight, "the shard is ordered")
    object_store.order(Fault(Action.CUT_BEFORE))
    bench.painter.allowed.release(1000)
    wait_until(lambda: "cannot be reached" in bench.space.notice, "the run waits for the bucket")
    if end == "stop":
        bench.stop_engine()
    else:
        bench.ledger.control(bench.job_id, "cancel")
    assert running.report().ended == ended
    assert bench.status().failed == 0


def test_a_store_that_refuses_what_is_asked_for_sends_the_job_to_other_workers(
    bench: BucketBench, sha: str, object_store: BreakableStore, wait_until: Wait
) -> None:
    bench.submit(lines(4, p2={"init_latents": sha}))
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.GET}), rf"{sha}\.npy", status=403))
    assert bench.run().ended == "refused"
    assert bench.status().failed == 0


def test_the_command_of_a_failure_names_the_output_where_its_files_are(bench: BucketBench, sha: str) -> None:
    bench.submit(lines(4, p1={"prompt": "raise", "init_latents": sha}, p2={"init_latents": "0" * 64}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 2, 2)
    raised, missing = bench.output.shard_failures(0)
    assert "there is no such file" in missing.reason
    words = shlex.split(raised.command)
    place = words[words.index("--inputs") + 1]
    assert place == bench.output.label
    assert np.array_equal(inputs_of(bench.entries[1].request, [place]).latents(sha), LATENTS)
