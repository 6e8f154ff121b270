"""One shard under its lease: real ledger, engine, keeper and output; only the painting is a stand-in."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from jobs import redis_keys
from jobs.errors import LedgerUnavailable, ModelError
from jobs.job import Claim, JobSpec
from jobs.latents import write_input
from jobs.ledger import Ledger
from jobs.metadata import Failure
from jobs.output import Output
from jobs.request import Entry, ImageRequest
from jobs.shard import Shard, encode_shard
from producer.embedded_redis import EmbeddedRedis
from worker.disk_space import DiskSpace
from worker.encode import read_request
from worker.engine import Engine, Pipeline
from worker.keeper import Keeper
from worker.lease import Lease
from worker.renderer import Picture, RenderedBy, Stopped
from worker.shard_run import ShardRun
from worker.store import ShardStore

ROWS = 4
BASE = ImageRequest(
    prompt="", seed=0, height=8, width=8, guidance_scale=1.0, model="m", revision="1", precision="fp32"
)
RENDERED_BY = RenderedBy(precision="fp32", rows=ROWS, device="cpu", versions={})
Wait = Callable[..., None]


class Painter:
    """Renders micro-batches of four while `allowed` lets it; a prompt "raise" raises."""

    def __init__(self) -> None:
        self.rendered_by = RENDERED_BY
        self.seen: list[ImageRequest] = []
        self.latents: list[np.ndarray | None] = []
        self.allowed = threading.Semaphore(1000)

    def batch_size(self, request: ImageRequest) -> int:
        return ROWS

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        while not self.allowed.acquire(timeout=0.01):
            if stop():
                raise Stopped
        self.seen += requests
        self.latents += init_latents
        if any(request.prompt == "raise" for request in requests):
            raise RuntimeError("no such token")
        return [Picture(pixels(request.seed), finite=True) for request in requests]

    def halve_rows(self) -> bool:
        return False

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        return self.render([request], [init_latents], stop)[0]

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

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.root = url, folder
        self.ledger = Ledger(url)
        self.client: Any = redis.Redis.from_url(url)
        self.output = Output(folder / "out")
        self.output.prepare()
        self.painter = Painter()
        self.stop = Impatient()
        self.space = DiskSpace(0, self.stop)
        self.load_error: Exception | None = None
        self.engine = Engine(self._load, rows=ROWS, writers=2)
        self.engine.start()
        self.keeper = Keeper(
            self.ledger, "w1", lease=0.6, models=(), facts=lambda: {"pid": 1}, top_up=lambda _count: None
        )
        self.keeper.start()

    def _load(self, _pipeline: Pipeline) -> Painter:
        if self.load_error is not None:
            raise self.load_error
        return self.painter

    def submit(self, entries: Sequence[Entry], *, shard: int = 0) -> str:
        self.spec = JobSpec(
            manifest={},
            base=dataclasses.asdict(BASE),
            name="cats",
            output=str(self.output.path),
            model="m",
            revision="1",
            precision="fp32",
            column_names=[],
            shard_size=64,
            priority=5,
            max_failures=None,
            retention=3600,
        )
        self.entries = list(entries)
        job_id, _ = self.ledger.create(self.spec, "digest", 1)
        blob = encode_shard(Shard(range(100, 100 + len(entries)), entries), BASE)
        count = len(entries)
        self.ledger.add(job_id, self.ledger.incarnation(job_id), 0, count, [(shard, count, blob)], seal=True)
        return job_id

    def claim(self, worker: str = "w1") -> Claim:
        claim = self.ledger.claim(worker, lease=30, loaded="", idle=0, load_time=0, models=())
        assert claim is not None
        return claim

    def store(self, attempt: str) -> ShardStore:
        """Another attempt at the same shard."""
        return ShardStore(
            self.output, 0, attempt, self.entries, job_id="cats-1", column_names=[], adopt_below=0
        )

    def run(self, claim: Claim | None = None, *, ledger: Ledger | None = None) -> Report:
        held = self.claim() if claim is None else claim
        self.keeper.hold(held)
        try:
            lease = Lease(
                held,
                ledger=self.ledger if ledger is None else ledger,
                keeper=self.keeper,
                worker="w1",
                stop=self.stop,
            )
            run = ShardRun(lease, self.spec, engine=self.engine, root=self.root, space=self.space, rows=ROWS)
            return Report(**lease.carry_out(run))
        finally:
            self.keeper.drop(held)

    def begin(self, claim: Claim | None = None, *, ledger: Ledger | None = None) -> Running:
        return Running(self, claim, ledger)

    def saved(self) -> int:
        """Images that lie finished in the spool."""
        return len(list(self.output.spool.glob("*/*/metadata/*.json")))

    def check_committed(self, count: int) -> None:
        """The shard's pictures are there, each its own, in the order of its entries."""
        rows = list(self.output.rows(0))
        ids = {entry.request.image_id: entry.request for entry in self.entries}
        assert len(rows) == len({row["image_id"] for row in rows}) == count
        for row in rows:
            file = self.output.shard_folder(0) / row["file_name"]
            assert read_request(file) == ids[row["image_id"]]

    def done(self, job_id: str) -> set[int]:
        """The indices whose done bit is set."""
        bits = self.ledger.done_bits(job_id)
        return {i for i in range(len(bits) * 8) if bits[i // 8] >> (7 - i % 8) & 1}

    def close(self) -> None:
        self.painter.allowed.release(1000)
        self.engine.close()
        self.keeper.stop()


class Running:
    """A shard's run on a thread of its own."""

    def __init__(self, bench: Bench, claim: Claim | None, ledger: Ledger | None) -> None:
        self._reports: list[Report | BaseException] = []

        def run() -> None:
            try:
                self._reports.append(bench.run(claim, ledger=ledger))
            except BaseException as error:
                self._reports.append(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def report(self) -> Report:
        """How it ended; a run that hangs or raises fails the test."""
        self._thread.join(15)
        assert self._reports, "the run has not ended"
        report = self._reports[0]
        assert isinstance(report, Report), repr(report)
        return report


@pytest.fixture
def bench(redis_server: EmbeddedRedis, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(redis_server.url, tmp_path)
    yield bench
    bench.close()


def test_a_shard_is_recorded_as_it_goes_and_then_committed_and_completed(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(10))
    bench.painter.hold_after(1)
    running = bench.begin()
    wait_until(lambda: bench.ledger.status(job_id).done == 4, "the first micro-batch is in the ledger")
    status = bench.ledger.status(job_id)
    assert (status.state, status.shards_leased, status.left) == ("sealed", 1, 6)
    assert bench.done(job_id) == {100, 101, 102, 103}
    assert not bench.output.committed(0)
    bench.painter.allowed.release(10)
    report = running.report()
    assert dataclasses.replace(report, seconds=0) == Report("cats-1", 0, "committed", 10, 0, 0, 0)
    bench.check_committed(10)
    status = bench.ledger.status(job_id)
    assert (status.state, status.done, status.left, status.shards_leased) == ("finishing", 10, 0, 0)
    assert bench.done(job_id) == set(range(100, 110))
    assert list(bench.output.spool.iterdir()) == []


def test_what_an_earlier_attempt_finished_is_adopted_and_only_the_rest_rendered(bench: Bench) -> None:
    job_id = bench.submit(lines(7))
    earlier = bench.store("000001-dead")
    for position in (1, 4, 6):
        earlier.save(position, pixels(position + 1), RENDERED_BY)
    report = bench.run()
    assert (report.ended, report.rendered, report.adopted, report.failed) == ("committed", 4, 3, 0)
    assert sorted(request.seed for request in bench.painter.seen) == [1, 3, 4, 6]
    bench.check_committed(7)
    assert bench.ledger.status(job_id).done == 7


def test_a_shard_of_which_everything_was_finished_needs_no_rendering(bench: Bench) -> None:
    job_id = bench.submit(lines(3))
    earlier = bench.store("000001-dead")
    for position in range(3):
        earlier.save(position, pixels(position + 1), RENDERED_BY)
    assert bench.run().adopted == 3
    assert bench.painter.seen == []
    assert bench.ledger.status(job_id).state == "finishing"


def test_a_shard_that_another_attempt_committed_is_only_recorded(bench: Bench) -> None:
    job_id = bench.submit(lines(4))
    other = bench.store("000001-dead")
    for position in (0, 1, 3):
        other.save(position, pixels(position + 1), RENDERED_BY)
    failure = Failure(
        shard=0, position=2, entry=bench.entries[2], reason="black", job_id="cats-1", command="none"
    )
    assert other.commit([failure])
    report = bench.run()
    assert (report.ended, report.failed) == ("found committed", 1)
    assert bench.painter.seen == []
    assert bench.done(job_id) == {100, 101, 103}
    failures = bench.ledger.failures(job_id)
    assert list(failures) == [102]
    assert failures[102] == {
        "shard": 0,
        "position": 2,
        "image_id": bench.entries[2].request.image_id,
        "reason": "black",
    }
    assert bench.ledger.status(job_id).state == "finishing"


def test_a_shard_committed_by_another_while_this_one_renders_counts_once(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(8))
    bench.painter.hold_after(1)
    claim = bench.claim()
    running = bench.begin(claim)
    wait_until(lambda: bench.ledger.status(job_id).done == 4, "half of it is rendered")
    other = bench.store("000002-other")
    other.adopt()
    for position in range(4, 8):
        other.save(position, pixels(position + 1), RENDERED_BY)
    assert other.commit([])
    bench.painter.allowed.release(10)
    assert running.report().ended == "lost"
    bench.ledger.release(claim)
    assert bench.run().ended == "found committed"
    bench.check_committed(8)
    status = bench.ledger.status(job_id)
    assert (status.done, status.left, status.state) == (8, 0, "finishing")


def test_a_lost_lease_is_left_without_a_commit_and_without_touching_its_new_holder(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(8))
    bench.painter.hold_after(1)
    claim = bench.claim()
    running = bench.begin(claim)
    wait_until(lambda: bench.ledger.status(job_id).done == 4, "half of it is rendered")
    bench.ledger.release(claim)
    taken = bench.claim("w2")
    assert running.report().ended == "lost"
    assert not bench.output.committed(0)
    assert bench.ledger.renew([taken], 30) == ["held"]
    bench.painter.allowed.release(10)
    bench.engine.flush(5)
    status = bench.ledger.status(job_id)
    assert (status.done, status.workers) == (4, ["w2"])
    assert len(bench.painter.seen) <= 8


def test_a_cancelled_job_gets_its_shard_back_and_keeps_what_was_finished(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(12))
    bench.painter.hold_after(1)
    running = bench.begin()
    wait_until(lambda: bench.ledger.status(job_id).done == 4, "a third of it is rendered")
    bench.ledger.control(job_id, "cancel")
    report = running.report()
    assert (report.ended, report.rendered) == ("cancelled", 4)
    status = bench.ledger.status(job_id)
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
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, gate, save = threading.Event(), threading.Event(), ShardStore.save

    def slow(*arguments: Any) -> None:
        writing.set()
        gate.wait(10)
        save(*arguments)

    monkeypatch.setattr(ShardStore, "save", slow)
    job_id = bench.submit(lines(8))
    bench.painter.hold_after(1)
    running = bench.begin()
    assert writing.wait(10)
    bench.stop.set()
    bench.engine.stop()
    threading.Timer(0.5, gate.set).start()
    report = running.report()
    assert (report.ended, report.rendered) == ("released", 4)
    assert (bench.ledger.status(job_id).done, bench.saved()) == (4, 4)


def test_a_worker_that_stops_gives_its_shard_back_and_the_next_adopts_what_is_finished(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(12))
    bench.painter.hold_after(2)
    running = bench.begin()
    wait_until(lambda: bench.ledger.status(job_id).done == 8, "two thirds of it are rendered")
    bench.stop.set()
    bench.engine.stop()
    report = running.report()
    assert (report.ended, report.rendered) == ("released", 8)
    status = bench.ledger.status(job_id)
    assert (status.shards_ready, status.shards_leased, status.done) == (1, 0, 8)
    assert bench.saved() == 8
    bench.engine.close()
    bench.painter, bench.stop = Painter(), Impatient()
    bench.engine = Engine(bench._load, rows=ROWS)
    bench.engine.start()
    report = bench.run()
    assert (report.ended, report.rendered, report.adopted) == ("committed", 4, 8)
    assert len(bench.painter.seen) == 4
    bench.check_committed(12)


def test_stopped_while_the_disk_is_full_it_gives_the_shard_back_at_once(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardStore, "save", full)
    job_id = bench.submit(lines(8))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.stop.set()
    bench.engine.stop()
    assert running.report().ended == "released"
    status = bench.ledger.status(job_id)
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


def test_a_job_cancelled_while_the_disk_is_full_leaves_the_writers_free(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardStore, "save", full)
    job_id = bench.submit(lines(12))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the writers wait for space")
    bench.ledger.control(job_id, "cancel")
    assert running.report().ended == "cancelled"
    wait_until(lambda: bench.engine._unwritten == 0, "no writer waits for what nobody wants")
    status = bench.ledger.status(job_id)
    assert (status.state, status.shards_leased, status.failed) == ("finishing", 0, 0)


def test_redis_that_goes_away_in_the_middle_of_a_shard_costs_nothing(bench: Bench) -> None:
    job_id = bench.submit(lines(10, p3={"prompt": "raise"}))
    flaky = FlakyLedger(bench.url)
    report = bench.run(ledger=flaky)
    assert (report.ended, report.rendered, report.failed) == ("committed", 9, 1)
    assert min(flaky.raised.values()) > flaky.outages
    bench.check_committed(9)
    status = bench.ledger.status(job_id)
    assert (status.state, status.done, status.failed, status.left) == ("finishing", 9, 1, 0)


def test_a_redis_that_stands_still_for_a_while_costs_nothing(
    bench: Bench, redis_server: EmbeddedRedis, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = bench.submit(lines(8))
    bench.painter.hold_after(1)
    running = bench.begin(ledger=Ledger(bench.url, timeout=0.1))
    wait_until(lambda: bench.ledger.status(job_id).done == 4, "half of it is rendered")
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        bench.painter.allowed.release(10)
        wait_until(lambda: bench.saved() == 8, "the rest is on disk without Redis")
        wait_until(lambda: "Redis does not answer" in caplog.text, "the run has met the outage")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert running.report().ended == "committed"
    bench.check_committed(8)
    assert bench.ledger.status(job_id).done == 8


def test_a_worker_that_stops_while_redis_is_away_leaves_its_shard_to_the_lease(
    bench: Bench, wait_until: Wait
) -> None:
    job_id = bench.submit(lines(4))

    class Gone(FlakyLedger):
        outages = 1_000_000

        def first_shard(self, job_id: str) -> int:
            return Ledger.first_shard(self, job_id)

        def release(self, claim: Claim) -> None:
            self._maybe_away("release")

    gone = Gone(bench.url)
    running = bench.begin(ledger=gone)
    wait_until(lambda: gone.raised.get("record", 0) > 2, "the run waits for Redis")
    bench.stop.set()
    assert running.report().ended == "released"
    assert bench.ledger.status(job_id).shards_leased == 1
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
    job_id = bench.submit(lines(6))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 6, 0)
    assert sorted(refused) == ["adopt"] * 2 + ["commit"] * 2 + ["save"] * 2
    bench.check_committed(6)
    assert bench.ledger.status(job_id).failed == 0
    assert bench.space.notice == ""


def test_stopped_while_the_disk_is_too_full_to_commit_it_gives_the_shard_back(
    bench: Bench, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> bool:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(ShardStore, "commit", full)
    job_id = bench.submit(lines(3))
    running = bench.begin()
    wait_until(lambda: bench.space.notice, "the commit waits for space")
    bench.stop.set()
    assert running.report().ended == "released"
    status = bench.ledger.status(job_id)
    assert (status.shards_ready, status.shards_leased, status.done) == (1, 0, 3)
    assert bench.saved() == 3


def test_initial_latents_reach_the_renderer_and_missing_ones_fail_their_image_alone(bench: Bench) -> None:
    latents = np.arange(16, dtype=np.float32).reshape(4, 2, 2)
    sha, missing = write_input(bench.output.inputs, latents), "0" * 64
    job_id = bench.submit(lines(3, p1={"init_latents": sha}, p2={"init_latents": missing}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 2, 1)
    given = {
        request.seed: latent
        for request, latent in zip(bench.painter.seen, bench.painter.latents, strict=True)
    }
    assert given[1] is None
    assert np.array_equal(given[2], latents)  # type: ignore[arg-type]
    failures = bench.ledger.failures(job_id)
    assert list(failures) == [102]
    assert f"{missing}.npy: there is no such file" in failures[102]["reason"]
    assert [failure.position for failure in bench.output.shard_failures(0)] == [2]


def test_an_image_that_fails_is_told_with_its_reason_and_stands_beside_its_neighbours(bench: Bench) -> None:
    job_id = bench.submit(lines(5, p2={"prompt": "raise"}))
    report = bench.run()
    assert (report.ended, report.rendered, report.failed) == ("committed", 4, 1)
    bench.check_committed(4)
    assert bench.ledger.failures(job_id)[102]["reason"].startswith("raised RuntimeError: no such token")
    kept = bench.output.shard_failures(0)
    assert [(failure.position, failure.entry) for failure in kept] == [(2, bench.entries[2])]


def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(bench: Bench) -> None:
    bench.load_error = ModelError("m: not there")
    job_id = bench.submit(lines(5))
    assert bench.run().ended == "refused"
    status = bench.ledger.status(job_id)
    assert (status.refusals, status.shards_ready, status.failed) == ({"w1": "m: not there"}, 1, 0)
    assert bench.ledger.claim("w1", lease=1, loaded="", idle=9, load_time=0, models=()) is None


def test_an_output_outside_the_workers_root_is_refused_and_untouched(bench: Bench, tmp_path: Path) -> None:
    job_id = bench.submit(lines(2))
    bench.root = tmp_path / "elsewhere"
    assert bench.run().ended == "refused"
    assert "IMAGEMILL_OUTPUT_ROOT" in bench.ledger.status(job_id).refusals["w1"]
    assert list(bench.output.spool.iterdir()) == []


@pytest.mark.parametrize("method", ["adopt", "save", "commit"])
def test_an_output_that_this_worker_cannot_write_is_refused_with_the_systems_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def forbidden(*_arguments: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "images")

    monkeypatch.setattr(ShardStore, method, forbidden)
    job_id = bench.submit(lines(6))
    assert bench.run().ended == "refused"
    status = bench.ledger.status(job_id)
    assert "Permission denied" in status.refusals["w1"]
    assert str(bench.output.path) in status.refusals["w1"]
    assert (status.shards_ready, status.shards_leased, status.failed) == (1, 0, 0)


def test_a_job_that_is_gone_from_redis_is_left_without_a_word_to_anybody(bench: Bench) -> None:
    bench.submit(lines(2))
    held = bench.claim()
    bench.client.flushall()
    assert bench.run(held).ended == "lost"
    assert bench.client.keys("imagemill:job:*") == []
    assert not bench.output.committed(0)


def test_a_shard_that_this_version_cannot_read_is_refused(bench: Bench) -> None:
    job_id = bench.submit(lines(2))
    bench.client.hset(redis_keys.job(job_id, "shards"), "0", b"no shard")
    assert bench.run().ended == "refused"
    assert "a shard in Redis cannot be read" in bench.ledger.status(job_id).refusals["w1"]
