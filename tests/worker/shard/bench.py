"""What a worker process holds, with one job of one shard; only the painting is a stand-in."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import redis

from jobs.entry import Entry
from jobs.errors import ImagemillError, LedgerUnavailable
from jobs.inputs.inputs import Inputs
from jobs.ledger.job import Addition, Claim, JobSpec, JobStatus, NewShard, SlotsKey, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.ledger.shard import Shard, encode_shard
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from tests.waiting import LONGEST
from worker.encode import read_request
from worker.engine.engine import Engine
from worker.engine.renderer import (
    AskedT,
    Batching,
    Bucket,
    OutOfMemory,
    Picture,
    Pipeline,
    RenderedBy,
    Source,
    Stopped,
)
from worker.lease.disk_space import DiskSpace
from worker.lease.heartbeat import Heartbeat
from worker.lease.lease import Lease
from worker.shard.shard_run import ShardRun
from worker.shard.store import ShardStore
from worker.shard.workplace import Workplace

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
        self.batching: Batching = "exact"

    def task(self, request: ImageRequest) -> str:
        return ""

    def slots(self, request: ImageRequest) -> int:
        return 1

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
            yield [(one, self._paint(one.request, one.inputs)) for one in self.wait_for_leave(asked, stop)]

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        self.wait_for_leave([], stop)
        painted = self._paint(request, inputs)
        if isinstance(painted, ImagemillError):
            raise painted
        return painted

    def wait_for_leave(self, asked: Sequence[AskedT], stop: Callable[[], bool]) -> Sequence[AskedT]:
        while not self.allowed.acquire(timeout=0.01):
            if stop():
                raise Stopped
        return asked

    def _paint(self, request: ImageRequest, inputs: Inputs) -> Picture | ImagemillError:
        named = request.init_latents
        try:
            latents = None if named is None else inputs.latents(named)
        except ImagemillError as error:
            return error
        self.seen.append(request)
        self.latents.append(latents)
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
        Entry.of(request=dataclasses.replace(BASE, seed=i + 1, **changes.get(f"p{i}", {})))  # type: ignore[arg-type]
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
            self.ledger, "w1", lease=3.0, models=(), facts=lambda: {"pid": 1}, top_up=lambda _count: None
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

    def workplace(self) -> Workplace:
        """What the process has for the shards that it renders now."""
        return Workplace(self.engine, self.root, self.space, self.settings)

    def _load(self, _pipeline: Pipeline) -> Painter:
        if self.load_error is not None:
            raise self.load_error
        return self.painter

    def submit(self, entries: Sequence[Entry], referenced: Mapping[str, str] = MappingProxyType({})) -> None:
        self.entries, count = list(entries), len(entries)
        self.job_id, _ = self.ledger.create(self.spec, "digest", 1)
        blob = encode_shard(Shard(range(100, 100 + count), entries, inputs=referenced), BASE)
        incarnation = self.ledger.incarnation(self.job_id)
        self.ledger.add(
            self.job_id,
            incarnation,
            Addition(cursor=0, new_cursor=count, seal=True, shards=[NewShard(0, count, blob)]),
        )

    def status(self) -> JobStatus:
        return self.ledger.status(self.job_id)

    def claim(self, worker: str = "w1") -> Claim:
        claim = self.ledger.claim(worker, WorkerState(), lease=30)
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
            return Report(**lease.carry_out(ShardRun(lease, self.spec, self.workplace())))
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
        return self._ended.result(LONGEST)


def failing(number: int) -> Callable[..., Any]:
    """A method that the system refuses with the error of this number."""

    def fail(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
