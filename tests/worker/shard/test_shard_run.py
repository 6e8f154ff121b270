"""One shard under its lease: real ledger, engine, heartbeat and output; only the painting is a stand-in."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pkgutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import zstandard

from jobs.errors import ImagemillError, LeaseLost, LedgerUnavailable, ModelError
from jobs.latents import write_input
from jobs.ledger import redis_keys
from jobs.ledger.job import Claim, JobSpec, JobStatus, SlotsKey
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.stored_shard import LayoutName
from jobs.request import Entry, ImageRequest
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.embedded_redis import EmbeddedRedis
from worker.encode import read_request
from worker.engine.engine import Engine
from worker.engine.renderer import AskedT, Bucket, OutOfMemory, Picture, Pipeline, RenderedBy, Source, Stopped
from worker.lease.disk_space import DiskSpace
from worker.lease.heartbeat import Heartbeat
from worker.lease.lease import Lease
from worker.shard import buckets
from worker.shard.shard_run import ShardRun
from worker.shard.store import ShardStore

SLOTS = 4
BASE = ImageRequest(
    prompt="", seed=0, height=8, width=8, guidance_scale=1.0, model="m", revision="1", precision="fp32"
)
RENDERED_BY = RenderedBy(precision="fp32", rows=SLOTS, device="cpu", versions={})
Wait = Callable[..., None]


class Painter:
    """Renders as many images as there are slots at a time, while `allowed` lets it; prompt "raise" raises."""

    device, precision, versions = "cpu", "fp32", RENDERED_BY.versions

    def __init__(self) -> None:
        self.seen: list[ImageRequest] = []
        self.latents: list[np.ndarray | None] = []
        self.allowed = threading.Semaphore(1000)
        self.measured: list[tuple[int, int]] = []
        self.most_slots = 1000

    def forwards(self, request: ImageRequest) -> int:
        return 1

    def measure_slots(self, height: int, width: int) -> int:
        self.measured.append((height, width))
        return SLOTS

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[list[tuple[AskedT, Picture | ImagemillError]]]:
        if bucket.slots > self.most_slots:
            source.take(bucket.slots)
            raise OutOfMemory(f"no room for {bucket.slots} slots")
        while asked := source.take(bucket.slots):
            yield [(one, self._paint(one.request, one.init_latents)) for one in self._allowed(asked, stop)]

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        self._allowed([], stop)
        return self._paint(request, init_latents)

    def _allowed(self, asked: Sequence[AskedT], stop: Callable[[], bool]) -> Sequence[AskedT]:
        while not self.allowed.acquire(timeout=0.01):
            if stop():
                raise Stopped
        return asked

    def _paint(self, request: ImageRequest, init_latents: np.ndarray | None) -> Picture:
        self.seen.append(request)
        self.latents.append(init_latents)
        if request.prompt == "raise":
            raise RuntimeError("no such token")
        return Picture(pixels(request.seed), finite=True)

    def hold_after(self, batches: int) -> None:
        """From now on renders so many micro-batches and waits."""
        self.allowed = threading.Semaphore(batches)


class Impatient(threading.Event):
    """A stop event on which nobody waits long: pauses of a second take a hundredth."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else min(timeout, 0.01))


class FlakyLedger(Ledger):
    """Redis is away for the first `outages` calls of each method that a shard's run makes."""

    outages = 3

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.raised: dict[str, int] = {}

    def _maybe_away(self, call: str) -> None:
        self.raised[call] = self.raised.get(call, 0) + 1
        if self.raised[call] <= self.outages:
            raise LedgerUnavailable(f"Redis does not answer {call}")

    def first_shard(self, job_id: str) -> int:
        self._maybe_away("first_shard")
        return super().first_shard(job_id)

    def settle_slots(self, claim: Claim, size: SlotsKey, **how: Any) -> int:
        self._maybe_away("settle_slots")
        return super().settle_slots(claim, size, **how)

    def record(self, claim: Claim, *marks: Any) -> int:
        self._maybe_away("record")
        return super().record(claim, *marks)

    def complete(self, claim: Claim, *marks: Any) -> int:
        self._maybe_away("complete")
        return super().complete(claim, *marks)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def lines(count: int, **changes: dict[str, object]) -> list[Entry]:
    """`count` entries of seeds 1, 2, …; `changes` by position, `p3={"prompt": …}`."""
    return [
        Entry(request=dataclasses.replace(BASE, seed=i + 1, **changes.get(f"p{i}", {})))  # type: ignore[arg-type]
        for i in range(count)
    ]


@dataclasses.dataclass(frozen=True)
class Report:
    """A task's result, by name."""

    job: str
    shard: int
    ended: str
    rendered: int
    adopted: int
    failed: int
    seconds: float


class Bench:
    """What a worker process holds, with one job of one shard whose images have the indices 100, 101, …"""

    def __init__(self, url: str, folder: Path, job_spec: Callable[..., JobSpec], wait_until: Wait) -> None:
        self.url, self.root, self.wait_until = url, folder, wait_until
        self.ledger = Ledger(url)
        self.client: Any = redis.Redis.from_url(url)
        self.output = Output(folder / "out")
        self.output.prepare()
        self.spec = job_spec(
            base=dataclasses.asdict(BASE),
            output=str(self.output.path),
            model=BASE.model,
            revision=BASE.revision,
            precision=BASE.precision,
        )
        self.settings = Settings()
        self.load_error: Exception | None = None
        self.start_engine()
        self.space = DiskSpace(0, self.stop)
        self.heartbeat = Heartbeat(
            self.ledger, "w1", lease=0.6, models=(), facts=lambda: {"pid": 1}, top_up=lambda _count: None
        )
        self.heartbeat.start()

    def start_engine(self) -> None:
        """An engine with a painter of its own, which nobody has told to stop."""
        self.painter, self.stop = Painter(), Impatient()
        self.engine = Engine(self._load, writers=2)
        self.engine.start()

    def stop_engine(self) -> None:
        """What a worker that is told to stop does at once."""
        self.stop.set()
        self.engine.stop()

    def _load(self, _pipeline: Pipeline) -> Painter:
        if self.load_error is not None:
            raise self.load_error
        return self.painter

    def submit(self, entries: Sequence[Entry]) -> None:
        self.entries, count = list(entries), len(entries)
        self.job_id, _ = self.ledger.create(self.spec, "digest", 1)
        blob = encode_shard(Shard(range(100, 100 + count), entries), BASE)
        incarnation = self.ledger.incarnation(self.job_id)
        self.ledger.add(self.job_id, incarnation, 0, count, [(0, count, blob)], seal=True)

    def status(self) -> JobStatus:
        return self.ledger.status(self.job_id)

    def claim(self, worker: str = "w1") -> Claim:
        claim = self.ledger.claim(worker, lease=30, loaded="", idle=0, load_time=0, models=())
        assert claim is not None
        return claim

    def other_attempt(self, *positions: int) -> ShardStore:
        """Another attempt at the same shard, which adopts what there is and saves these images."""
        other = ShardStore(
            self.output,
            0,
            "000000-other",
            self.entries,
            job_id="cats-1",
            column_names=[],
            adopt_below=0,
            layout=self.spec.layout,
        )
        other.adopt()
        for position in positions:
            other.save(position, pixels(position + 1), RENDERED_BY)
        return other

    def run(self, claim: Claim | None = None, *, ledger: Ledger | None = None) -> Report:
        held = self.claim() if claim is None else claim
        self.heartbeat.hold(held)
        try:
            lease = Lease(
                held,
                ledger=self.ledger if ledger is None else ledger,
                heartbeat=self.heartbeat,
                worker="w1",
                stop=self.stop,
            )
            run = ShardRun(
                lease,
                self.spec,
                engine=self.engine,
                root=self.root,
                space=self.space,
                settings=self.settings,
            )
            return Report(**lease.carry_out(run))
        finally:
            self.heartbeat.drop(held)

    def begin(self, claim: Claim | None = None, *, ledger: Ledger | None = None) -> Running:
        return Running(lambda: self.run(claim, ledger=ledger))

    def begin_until(
        self,
        done: int,
        claim: Claim | None = None,
        *,
        ledger: Ledger | None = None,
        batches: int | None = None,
    ) -> Running:
        """Begins a run and sees so many images into the ledger; the next wait for `painter.allowed`."""
        self.painter.hold_after(done // SLOTS if batches is None else batches)
        running = self.begin(claim, ledger=ledger)
        self.wait_until(lambda: self.status().done == done, f"{done} images are in the ledger")
        return running

    def saved(self) -> int:
        """Images that lie finished in the spool."""
        return len(list(self.output.spool.glob("*/*/metadata/*.json")))

    def check_committed(self, count: int) -> None:
        """The shard's pictures are there, each its own, in the order of its entries."""
        records = list(self.output.records(0))
        ids = {entry.request.image_id: entry.request for entry in self.entries}
        assert len(records) == len({record["image_id"] for record in records}) == count
        for record in records:
            ((name, data),) = self.output.pictures(0, [record["file_name"]])
            (self.root / name).write_bytes(data)
            assert read_request(self.root / name) == ids[record["image_id"]]

    def done(self) -> set[int]:
        """The indices whose done bit is set."""
        bits = bytes(self.ledger.done_bits(self.job_id))
        return {i for i in range(len(bits) * 8) if bits[i // 8] >> (7 - i % 8) & 1}

    def close(self) -> None:
        self.painter.allowed.release(1000)
        self.engine.close()
        self.heartbeat.stop()


class Running:
    """A shard's run on a thread of its own."""

    def __init__(self, run: Callable[[], Report]) -> None:
        self._ended: Future[Report] = Future()

        def carry_out() -> None:
            try:
                self._ended.set_result(run())
            except BaseException as error:
                self._ended.set_exception(error)

        threading.Thread(target=carry_out, daemon=True).start()

    def report(self) -> Report:
        """How it ended; a run that hangs or raises fails the test."""
        return self._ended.result(15)


def failing(number: int) -> Callable[..., Any]:
    """A method that the system refuses with the error of this number."""

    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def bench(
    redis_server: EmbeddedRedis, tmp_path: Path, job_spec: Callable[..., JobSpec], wait_until: Wait
) -> Iterator[Bench]:
    bench = Bench(redis_server.url, tmp_path, job_spec, wait_until)
    yield bench
    bench.close()


def test_a_shard_is_recorded_as_it_goes_and_then_committed_and_completed(bench: Bench) -> None:
    bench.submit(lines(10))
    running = bench.begin_until(4)
    status = bench.status()
    assert (status.state, status.shards_leased, status.left) == ("sealed", 1, 6)
    assert bench.done() == {100, 101, 102, 103}
    assert not bench.output.committed(0)
    bench.painter.allowed.release(10)
    report = running.report()
    assert dataclasses.replace(report, seconds=0) == Report("cats-1", 0, "committed", 10, 0, 0, 0)
    bench.check_committed(10)
    status = bench.status()
    assert (status.state, status.done, status.left, status.shards_leased) == ("finishing", 10, 0, 0)
    assert bench.done() == set(range(100, 110))
    assert list(bench.output.spool.iterdir()) == []


def test_what_an_earlier_attempt_finished_is_adopted_and_only_the_rest_rendered(bench: Bench) -> None:
    bench.submit(lines(7))
    bench.other_attempt(1, 4, 6)
    report = bench.run()
    assert (report.ended, report.rendered, report.adopted, report.failed) == ("committed", 4, 3, 0)
    assert sorted(request.seed for request in bench.painter.seen) == [1, 3, 4, 6]
    bench.check_committed(7)
    assert bench.status().done == 7


def test_a_shard_of_which_everything_was_finished_needs_no_rendering(bench: Bench) -> None:
    bench.submit(lines(3))
    bench.other_attempt(0, 1, 2)
    assert bench.run().adopted == 3
    assert bench.painter.seen == []
    assert bench.status().state == "finishing"


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


def test_a_worker_that_stops_waits_for_the_pictures_that_are_being_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, gate, save = threading.Event(), threading.Event(), ShardStore.save

    def slow(*arguments: Any) -> None:
        writing.set()
        gate.wait(10)
        save(*arguments)

    monkeypatch.setattr(ShardStore, "save", slow)
    bench.submit(lines(8))
    bench.painter.hold_after(1)
    running = bench.begin()
    assert writing.wait(10)
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


def test_stopped_while_the_disk_is_full_it_gives_the_shard_back_at_once(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "save", failing(errno.ENOSPC))
    bench.submit(lines(8))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.stop_engine()
    assert running.report().ended == "released"
    status = bench.status()
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


def test_a_job_cancelled_while_the_disk_is_full_leaves_the_writers_free(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "save", failing(errno.ENOSPC))
    bench.submit(lines(12))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.ledger.control(bench.job_id, "cancel")
    assert running.report().ended == "cancelled"
    wait_until(lambda: not bench.engine.in_flight(), "no writer waits for what nobody wants")
    status = bench.status()
    assert (status.state, status.shards_leased, status.failed) == ("finishing", 0, 0)


def test_redis_that_goes_away_in_the_middle_of_a_shard_costs_nothing(bench: Bench) -> None:
    bench.submit(lines(10, p3={"prompt": "raise"}))
    flaky = FlakyLedger(bench.url)
    report = bench.run(ledger=flaky)
    assert (report.ended, report.rendered, report.failed) == ("committed", 9, 1)
    assert min(flaky.raised.values()) > flaky.outages
    bench.check_committed(9)
    status = bench.status()
    assert (status.state, status.done, status.failed, status.left) == ("finishing", 9, 1, 0)


def test_a_redis_that_stands_still_for_a_while_costs_nothing(
    bench: Bench, redis_server: EmbeddedRedis, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit(lines(8))
    running = bench.begin_until(4, ledger=Ledger(bench.url, timeout=0.1))
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        bench.painter.allowed.release(10)
        wait_until(lambda: bench.saved() == 8, "the rest is on disk without Redis")
        wait_until(lambda: "Redis does not answer" in caplog.text, "the run has met the outage")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert running.report().ended == "committed"
    bench.check_committed(8)
    assert bench.status().done == 8


def test_a_worker_that_stops_while_redis_is_away_leaves_its_shard_to_the_lease(
    bench: Bench, wait_until: Wait
) -> None:
    bench.submit(lines(4))

    class Gone(FlakyLedger):
        outages = 1_000_000

        def first_shard(self, job_id: str) -> int:
            return Ledger.first_shard(self, job_id)

        def settle_slots(self, claim: Claim, size: SlotsKey, **how: Any) -> int:
            return Ledger.settle_slots(self, claim, size, **how)

        def release(self, claim: Claim) -> None:
            self._maybe_away("release")

    gone = Gone(bench.url)
    running = bench.begin(ledger=gone)
    wait_until(lambda: gone.raised.get("record", 0) > 2, "the run waits for Redis")
    bench.stop.set()
    assert running.report().ended == "released"
    assert bench.status().shards_leased == 1
    assert bench.saved() == 4


def test_a_disk_that_is_full_for_a_while_fails_no_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    lock = threading.Lock()

    def full_at_first(method: Callable[..., Any], times: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with lock:
                if refused.count(method.__name__) < times:
                    refused.append(method.__name__)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return method(*arguments, **named)

        return call

    for name in ("adopt", "save", "commit"):
        monkeypatch.setattr(ShardStore, name, full_at_first(getattr(ShardStore, name), 2))
    bench.submit(lines(6))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 6, 0)
    assert sorted(refused) == ["adopt"] * 2 + ["commit"] * 2 + ["save"] * 2
    bench.check_committed(6)
    assert bench.status().failed == 0
    assert bench.space.notice == ""


def test_stopped_while_the_disk_is_too_full_to_commit_it_gives_the_shard_back(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardStore, "commit", failing(errno.EDQUOT))
    bench.submit(lines(3))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the commit waits for space")
    bench.stop.set()
    assert running.report().ended == "released"
    status = bench.status()
    assert (status.shards_ready, status.shards_leased, status.done) == (1, 0, 3)
    assert bench.saved() == 3


def test_initial_latents_reach_the_renderer_and_missing_ones_fail_their_image_alone(bench: Bench) -> None:
    latents = np.arange(16, dtype=np.float32).reshape(4, 2, 2)
    sha, missing = write_input(bench.output.inputs, latents), "0" * 64
    bench.submit(lines(3, p1={"init_latents": sha}, p2={"init_latents": missing}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 2, 1)
    given = {
        request.seed: latent
        for request, latent in zip(bench.painter.seen, bench.painter.latents, strict=True)
    }
    assert given[1] is None
    assert np.array_equal(given[2], latents)  # type: ignore[arg-type]
    failures = bench.ledger.failures(bench.job_id)
    assert list(failures) == [102]
    assert f"{missing}.npy: there is no such file" in failures[102]["reason"]
    assert [failure.position for failure in bench.output.shard_failures(0)] == [2]


def test_an_image_that_fails_is_told_with_its_reason_and_stands_beside_its_neighbours(bench: Bench) -> None:
    bench.submit(lines(5, p2={"prompt": "raise"}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 4, 1)
    bench.check_committed(4)
    assert bench.ledger.failures(bench.job_id)[102]["reason"].startswith("raised RuntimeError: no such token")
    kept = bench.output.shard_failures(0)
    assert [(failure.position, failure.entry) for failure in kept] == [(2, bench.entries[2])]


def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(bench: Bench) -> None:
    bench.load_error = ModelError("m: not there")
    bench.submit(lines(5))
    assert bench.run().ended == "refused"
    status = bench.status()
    assert (status.refusals, status.shards_ready, status.failed) == ({"w1": "m: not there"}, 1, 0)
    assert bench.ledger.claim("w1", lease=1, loaded="", idle=9, load_time=0, models=()) is None


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
    look = Output.check_within

    def look_too_early(output: Output, root: Path) -> None:
        look(output, root)
        output.spool.rmdir()
        output.spool.symlink_to(outside)

    monkeypatch.setattr(Output, "check_within", look_too_early)
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
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


@pytest.fixture
def tar_bench(bench: Bench) -> Bench:
    """A bench whose job has `layout: webdataset`."""
    bench.spec = dataclasses.replace(bench.spec, layout="webdataset")
    return bench


def test_a_job_of_tars_is_committed_and_recorded_as_one_of_folders(tar_bench: Bench) -> None:
    tar_bench.submit(lines(5, p2={"prompt": "raise"}))
    report = tar_bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 4, 1)
    tar_bench.check_committed(4)
    assert [failure.position for failure in tar_bench.output.shard_failures(0)] == [2]
    names = sorted(file.name for file in tar_bench.output.path.iterdir() if file.name[0] != ".")
    assert names == ["00000.parquet", "00000.tar"]
    assert (tar_bench.status().done, tar_bench.status().failed) == (4, 1)


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


@pytest.mark.parametrize("step", ["TarWriter.add", "TarWriter.close", "write_atomically"])
def test_a_tar_waits_for_space_and_leaves_nothing_half(
    tar_bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tar_bench.submit(lines(5, p2={"prompt": "raise"}))
    left = iter(range(3))
    name = f"jobs.output.webdataset.{step}"
    write = pkgutil.resolve_name(name)

    def full(*arguments: Any) -> Any:
        if next(left, None) is None:
            return write(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(name, full)
    assert tar_bench.run().ended == "committed"
    tar_bench.check_committed(4)
    assert list(tar_bench.output.spool.iterdir()) == []
    assert check_output(tar_bench.output).problems == []


def test_a_job_that_is_gone_from_redis_is_left_without_a_word_to_anybody(bench: Bench) -> None:
    bench.submit(lines(2))
    held = bench.claim()
    bench.client.flushall()
    assert bench.run(held).ended == "lost"
    assert bench.client.keys("imagemill:job:*") == []
    assert not bench.output.committed(0)


def test_slots_that_do_not_fit_are_halved_for_the_job_and_told_in_the_metadata(bench: Bench) -> None:
    bench.submit(lines(6))
    bench.painter.most_slots = 2
    assert bench.run().ended == "committed"
    bench.check_committed(6)
    assert {record["rendered_rows"] for record in bench.output.records(0)} == {2}
    bench.ledger.finish(bench.claim())
    bench.engine.close()
    bench.spec = dataclasses.replace(bench.spec, output=str(bench.root / "next"))
    bench.output = Output(bench.root / "next")
    bench.output.prepare()
    bench.submit(lines(2))
    bench.start_engine()
    bench.run()
    assert bench.painter.measured == []
    assert {record["rendered_rows"] for record in bench.output.records(0)} == {SLOTS}


@pytest.mark.parametrize("end", ["cancel", "stop", "lose", "raise"])
def test_slots_that_do_not_fit_are_told_however_the_shard_ends(bench: Bench, end: str) -> None:
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
        bench.client.hset(redis_keys.job(bench.job_id), "done", "no number")
        bench.painter.allowed.release(10)
    assert running.report().ended == {
        "cancel": "cancelled", "stop": "released", "lose": "lost", "raise": "refused"
    }[end]  # fmt: skip
    [slots] = bench.client.hvals(redis_keys.job(bench.job_id, "rows"))
    assert int(slots) == (SLOTS if end == "lose" else 2)


def test_the_slots_of_an_output_wait_for_space_like_its_pictures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wait_until: Wait
) -> None:
    keep, full = buckets.keep_slots, threading.Event()
    full.set()
    monkeypatch.setattr(
        buckets, "keep_slots", lambda *told: failing(errno.ENOSPC)() if full.is_set() else keep(*told)
    )
    bench.submit(lines(2))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the run waits for space")
    full.clear()
    assert running.report().ended == "committed"
    assert (bench.output.private / "rows.json").is_file()


def test_a_failures_command_has_the_slots_that_fitted(bench: Bench) -> None:
    bench.submit(lines(3, p1={"prompt": "raise"}))
    bench.painter.most_slots = 2
    assert bench.run().failed == 1
    [failure] = bench.output.shard_failures(0)
    assert failure.command.startswith("imagemill-worker --batch-size 2 render --request ")


def test_pictures_of_several_sizes_each_go_into_slots_of_their_own(bench: Bench) -> None:
    bench.submit(lines(6, p1={"width": 16}, p4={"width": 16}))
    assert bench.run().ended == "committed"
    assert bench.painter.measured == [(8, 8), (8, 16)]
    bench.check_committed(6)


# Images that kill their workers.


def worker_dies(bench: Bench, *positions: int, alone: int | None = None) -> None:
    """Another worker has these in its slots, or one alone, and its lease runs out."""
    claim = bench.claim("w2")
    bench.ledger.renew({claim: [100 + position for position in positions]}, 30)
    if alone is not None:
        bench.ledger.begin_alone(claim, 100 + alone)
    bench.client.zadd(redis_keys.LEASES, {f"{bench.job_id}/0": 1})
    bench.wait_until(lambda: bench.status().shards_leased == 0, "the lease is reaped")


def test_what_was_in_the_slots_when_workers_died_is_rendered_first_and_one_by_one(bench: Bench) -> None:
    bench.submit(lines(8))
    for _ in range(3):
        worker_dies(bench, 2, 5)
    forwards: list[list[int]] = []
    paint = bench.painter._allowed
    bench.painter._allowed = lambda asked, stop: (  # type: ignore[method-assign]
        forwards.append([one.request.seed for one in asked]),
        paint(asked, stop),
    )[1]
    report = bench.run()
    assert (report.ended, report.rendered) == ("committed", 8)
    assert sorted(forwards[:2]) == [[3], [6]]
    assert sorted(map(len, forwards[2:])) == [2, 4]
    assert bench.status().outcome == "complete"


def test_of_a_shard_that_is_suspect_as_a_whole_every_image_is_rendered_by_itself(bench: Bench) -> None:
    bench.submit(lines(5))
    forwards: list[int] = []
    paint = bench.painter._allowed
    bench.painter._allowed = lambda asked, stop: (  # type: ignore[method-assign]
        forwards.append(len(asked)),
        paint(asked, stop),
    )[1]
    report = bench.run(dataclasses.replace(bench.claim(), all_suspect=True))
    assert (report.ended, report.rendered, forwards) == ("committed", 5, [1] * 5)


def test_the_ledger_knows_which_image_has_the_slots_alone_while_it_does(bench: Bench) -> None:
    bench.submit(lines(4))
    for _ in range(3):
        worker_dies(bench, 1)
    known: list[object] = []
    paint = bench.painter._allowed

    def look(asked: Sequence[Any], stop: Callable[[], bool]) -> Sequence[Any]:
        lease = json.loads(bench.client.hget(redis_keys.job(bench.job_id, "leased"), "0"))
        known.append((len(asked), lease.get("alone")))
        return paint(asked, stop)

    bench.painter._allowed = look  # type: ignore[method-assign]
    assert bench.run().ended == "committed"
    assert known == [(1, 101), (3, 101)]


def test_an_image_that_two_workers_died_of_alone_fails_and_its_neighbours_do_not(bench: Bench) -> None:
    bench.submit(lines(4))
    worker_dies(bench, 1, alone=1)
    worker_dies(bench, 1, alone=1)
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 3, 1)
    assert [request.seed for request in bench.painter.seen] == [1, 3, 4]
    (failure,) = bench.output.shard_failures(0)
    assert (failure.position, failure.image_id) == (1, bench.entries[1].request.image_id)
    assert "the worker died each time" in failure.reason
    assert (bench.status().outcome, bench.status().left) == ("failures", 0)


def test_the_renewals_tell_what_is_in_the_slots(bench: Bench) -> None:
    bench.submit(lines(6))
    bench.painter.hold_after(0)
    told = threading.Thread(target=bench.run)
    told.start()

    def in_flight() -> list[int]:
        lease = bench.client.hget(redis_keys.job(bench.job_id, "leased"), "0")
        return sorted(json.loads(lease).get("rows", [])) if lease else []

    bench.wait_until(lambda: in_flight() == [100, 101, 102, 103], "four slots are told")
    bench.painter.allowed.release(100)
    told.join()


def test_a_shard_that_cannot_be_read_is_set_aside_and_the_job_ends(bench: Bench) -> None:
    bench.submit(lines(2))
    bench.client.hset(redis_keys.job(bench.job_id, "shards"), "0", b"torn")
    claim = bench.claim()
    bench.heartbeat.hold(claim)
    lease = Lease(claim, ledger=bench.ledger, heartbeat=bench.heartbeat, worker="w1", stop=bench.stop)
    run = ShardRun(
        lease, bench.spec, engine=bench.engine, root=bench.root, space=bench.space, settings=bench.settings
    )
    assert lease.carry_out(run)["ended"] == "set aside"
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
