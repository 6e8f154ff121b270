"""Armed workers on a Redis that breaks, and the jobs that they must get through all the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import redis

import jobs
from jobs.errors import LedgerUnavailable
from jobs.ledger import redis_keys
from jobs.ledger.shard import decode_shard
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from producer.job_queue import JobQueue
from producer.requests.prepared import prepare
from producer.submit.submit import submit_manifest
from tests.breakable_redis import BreakableRedis
from tests.farm import Farm
from tests.faults.arming import FOLDER, MACHINES, PACE, Meeting, Order, OrderBook
from tests.faults.oracle import Verdict, judge
from tests.object_store.breakable_store import BreakableStore
from tests.waiting import LONGEST, Overdue, wait_until

LEASE = 2.0
SIZE = 8
"""Of a shard, unless a job says otherwise."""
Result = TypeVar("Result")


@dataclass(slots=True)
class Leg:
    """One output and the job that writes it."""

    name: str
    job_id: str
    images: int
    output: str
    """As the manifest calls it: a folder, or a place in a bucket."""
    asked: list[str]

    @property
    def folder(self) -> Path:
        """The output, where it is a folder."""
        return Path(self.output)


class Field(Farm):
    """A farm whose workers obey orders, one job that is under way, and others beside it."""

    worker_command = (sys.executable, "-m", "tests.faults.armed_worker")

    def __init__(
        self,
        folder: Path,
        server: BreakableRedis,
        seed: int,
        workers: int = 3,
        store: BreakableStore | None = None,
    ) -> None:
        """`store`: jobs write into a bucket there, by the way that breaks; without it, into folders."""
        super().__init__(folder, server)
        self._store, self.bucket = store, f"soak-{secrets.token_hex(6)}"
        if store is not None:
            store.make_bucket(self.bucket)
        self.redis, self.client = server, server.client
        self.random = random.Random(seed)
        self.book = OrderBook(folder / "orders")
        self.names = [f"w{number}" for number in range(1, workers + 1)]
        self.leg: Leg | None = None
        """The job that is under way."""
        self.hits = 0
        self.paced = 0.0

    def environment(self, **settings: object) -> dict[str, str]:
        root = str(Path(jobs.__file__).parents[1])
        armed = {"PYTHONPATH": root, FOLDER: str(self.book.folder), "OMP_NUM_THREADS": "1"}
        own: dict[str, object] = {"lease": LEASE, "log_level": "WARNING"}
        if self._store is not None:
            armed |= self._store.environment() | {MACHINES: str(self._machines)}
            own["output_root"] = f"s3://{self.bucket}"
        return super().environment(**own | settings) | armed

    # Where outputs lie.

    @property
    def store(self) -> BreakableStore:
        """The store of the bucket, and the way to it."""
        assert self._store is not None
        return self._store

    @property
    def in_bucket(self) -> bool:
        return self._store is not None

    def place(self, name: str) -> str:
        """The output of a job of this name."""
        return f"s3://{self.bucket}/{name}" if self.in_bucket else str(self.folder / name)

    @property
    def _machines(self) -> Path:
        return self.folder / "machines"

    def spools(self, output: str) -> list[Path]:
        """The spools that an output in the bucket has on the workers' machines."""
        folder = Output.at(output).path.name
        return [*self._machines.glob(f"*/imagemill/outputs/{folder}/.imagemill/spool")]

    # Workers.

    def start(self) -> None:
        """Starts the workers, and waits until they are ready."""
        for name in self.names:
            self.start_worker(name)
        self.wait(self.ready, "the workers are there")

    def any_name(self) -> str:
        """One of the workers."""
        return self.random.choice(self.names)

    def pid(self, name: str) -> int | None:
        """The process that renders; None while there is none."""
        try:
            children = psutil.Process(self.workers[name].pid).children()
            return next((child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE), None)
        except psutil.NoSuchProcess:
            return None

    def pid_of(self, name: str) -> int:
        """The same, waited for."""
        self.wait(lambda: self.pid(name), f"{name} has a process")
        pid = self.pid(name)
        assert pid is not None
        return pid

    def some_pid(self) -> int:
        """The process of one of the workers."""
        return self.pid_of(self.any_name())

    def ready(self) -> bool:
        """Every worker has a process that told Redis so."""
        found = self.ledger.workers()
        pids = {name: self.pid(name) for name in self.names}
        return all(
            pid is not None and found.get(f"cpu0@{name}", {}).get("pid") == str(pid)
            for name, pid in pids.items()
        )

    def end_worker(self, name: str) -> int:
        """Asks a worker to leave; returns its exit status."""
        self.workers[name].terminate()
        return self.workers[name].wait(LONGEST)

    @contextmanager
    def restarted(self, name: str, **settings: object) -> Iterator[None]:
        """Starts a worker again with other settings, and as it was when the context ends.

        The job that is under way is paused when the context begins: `resume` it there.
        """
        assert self.leg is not None
        self.ledger.control(self.leg.job_id, "pause")
        self._start_again(name, **settings)
        self.wait(self.ready, f"{name} is there again")
        yield
        self._start_again(name)

    def resume(self) -> None:
        """Lets the job that is under way go on that was paused."""
        assert self.leg is not None
        self.ledger.control(self.leg.job_id, "resume")

    def _start_again(self, name: str, **settings: object) -> None:
        assert self.end_worker(name) == 0, self.log(name)[-2000:]
        self.start_worker(name, **settings)

    def attempts(self, name: str) -> dict[tuple[str, str], str]:
        """What a worker holds: (job, shard) -> attempt."""
        members = [member.decode().rpartition("/") for member in self.client.zrange(redis_keys.LEASES, 0, -1)]
        found = {
            (job, shard): self.client.hget(redis_keys.job(job, "leased"), shard) for job, _, shard in members
        }
        leases = {place: json.loads(lease) for place, lease in found.items() if lease is not None}
        return {place: lease["a"] for place, lease in leases.items() if lease["w"] == f"cpu0@{name}"}

    def taken_from(self, name: str) -> None:
        """Waits until nothing that a frozen worker holds is its own any more."""
        self.wait(lambda: not self.attempts(name), f"what {name} held is others'")

    @contextmanager
    def frozen(self, pid: int) -> Iterator[None]:
        """Stops a process for as long as the context lasts."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self, pid: int) -> None:
        """Kills a process and waits until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.gone(pid)

    def gone(self, pid: int) -> None:
        """Waits until a process is gone."""
        self.wait(lambda: not _alive(pid), f"process {pid} is gone")

    # Orders.

    def order(self, order: Order, then: Callable[[], object] = lambda: None) -> Meeting:
        """Gives an order and waits until it was met. `then` is called once it was given."""
        met = self.book.give(order)
        try:
            then()
            self.wait(lambda: self.book.meeting(met), f"somebody meets {order}")
        finally:
            self.book.withdraw(met)
        meeting = self.book.meeting(met)
        assert meeting is not None
        self.hit()
        return meeting

    def lasting(self, order: Order) -> Meeting:
        """Gives an order that lasts, waits until it was met, and then until it is over."""
        met = self.book.give(order)
        self.wait(lambda: self.book.meeting(met), f"somebody meets {order}")
        self.hit()
        meeting = self.book.meeting(met)
        assert meeting is not None
        self.wait(lambda: time.monotonic() > meeting.at + order.lasting, "it is over")
        self.book.withdraw(met)
        return meeting

    def hit(self) -> None:
        """Says that a fault hits now: a job must be under way, or it proves nothing."""
        assert self.leg is not None
        status = self.patiently(lambda: self.ledger.status(self.leg.job_id))  # type: ignore[union-attr]
        assert status.left > 0 or status.state == "finishing", f"{self.leg.job_id} was over already"
        self.hits += 1

    def pace(self, seconds: float) -> None:
        """Sets how long an image takes a worker."""
        self.paced = seconds
        temporary = self.folder / "pace.tmp"
        temporary.write_text(str(seconds))
        temporary.rename(self.book.folder / PACE)

    # Jobs.

    def begin(self, name: str, images: int, output: str | None = None, **keys: object) -> Leg:
        """Submits a job of its own output."""
        output = self.place(name) if output is None else output
        self.manifest(images, name=name, output=output, **{"shard_size": SIZE} | self.layout | keys)
        leg = Leg(name, "", images, output, [])
        self.submit_again(leg)
        return leg

    @contextmanager
    def side(self, images: int | None, **keys: object) -> Iterator[Leg]:
        """Writes the manifest of a job beside the one that is under way, which stands still meanwhile.

        `images`: None where `keys` say what there is.
        """
        assert self.leg is not None
        name, job_id, pace = f"side{self.hits}", self.leg.job_id, self.paced
        self.manifest(images, name=name, output=self.place(name), priority=0, **self.layout | keys)
        self.ledger.control(job_id, "pause")
        self.pace(min(pace, 0.03))
        try:
            yield Leg(name, "", images or 0, self.place(name), [])
        finally:
            self.pace(pace)
            self.patiently(lambda: self.ledger.control(job_id, "resume"))

    @property
    def layout(self) -> dict[str, object]:
        """What a manifest must say of it."""
        return {"layout": "webdataset"} if self.in_bucket else {}

    def submit_again(self, leg: Leg) -> None:
        """Submits a job's manifest once more, as a person does who lost sight of it."""
        prepared = prepare(self.folder / f"{leg.name}.yaml", Settings())
        # A writer of the output is looked at for as long as its lease, which is that of the workers.
        queue = JobQueue.at(self.server.url, Settings(lease=LEASE))
        leg.job_id = self.patiently(lambda: submit_manifest(prepared, queue)).job_id
        if not leg.asked:
            # A job asks for nothing once that of an earlier submission has rendered all.
            leg.asked = self.asked(leg.job_id) or [one[0] for one in prepared.entries()]

    def asked(self, job_id: str) -> list[str]:
        """The image_ids that a job is to render."""
        spec = self.ledger.spec(job_id)
        base = ImageRequest.from_mapping(spec.base)
        shards = [decode_shard(blob, base, spec.name) for blob in self.ledger.shard_blobs(job_id)]
        return [entry.request.image_id for shard in shards for entry in shard.entries]

    def armed_submit(self, name: str) -> subprocess.Popen[bytes]:
        """`imagemill submit` of a manifest that is written, in a process with armed failpoints."""
        with (self.folder / "producer.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.armed_producer", "submit", f"{name}.yaml"],
                env=self.environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def left(self) -> int:
        """Images of the job that is under way that are not done."""
        assert self.leg is not None
        job_id = self.leg.job_id
        return self.patiently(lambda: self.ledger.status(job_id)).left

    def finish(self, leg: Leg) -> Verdict:
        """Waits for a job to end, for as long as it comes nearer to it, and judges it."""
        try:
            self.wait(
                lambda: self.ledger.status(leg.job_id).state == "finished",
                f"{leg.job_id} ends",
                progress=lambda: self.ledger.status(leg.job_id).left,
            )
        except Overdue as error:
            raise Overdue(f"{error}\n{self.logs()}") from None
        # Who was fenced off is still leaving.
        output, begun = leg.output, self.begun()
        verdict = Verdict()

        def clean() -> bool:
            nonlocal verdict
            verdict = judge(output, self.client, leg.job_id, leg.asked, begun)
            if spooled := [file for spool in self.spools(output) for file in spool.glob("*/*/*/*")]:
                verdict.problems.append(f"workers keep {len(spooled)} files, {spooled[:3]} among them")
            return verdict.exact

        try:
            self.wait(clean, "the verdict", 10.0)
        except Overdue:
            verdict.problems.append(f"logs:\n{self.logs()}")
        if len(leg.asked) != leg.images:
            verdict.problems.append(
                f"{leg.images} were written into the manifest, {len(leg.asked)} are in the job"
            )
        return verdict

    def begun(self) -> list[str]:
        """The image_id of every image that ever entered a worker's rows, each time."""
        return [line for file in self.folder.glob("*.begun") for line in file.read_text().splitlines()]

    def logs(self) -> str:
        """The ends of the workers' logs, and how Redis sees things."""
        found = [f"{name}: {self.log(name)[-1500:]}" for name in self.names]
        with contextlib.suppress(redis.RedisError, LedgerUnavailable):
            queued = self.client.lrange(redis_keys.QUEUE, 0, 9)
            found += [f"{self.client.llen(redis_keys.QUEUE)} messages, the first {queued}"]
            found += [f"workers: {self.ledger.workers()}; ready: {self.ready()}"]
            found += [f"leases: {self.client.zrange(redis_keys.LEASES, 0, -1, withscores=True)}"]
            found += [f"{self.ledger.status(job_id)}" for job_id in self.ledger.job_ids()[-2:]]
        return "\n".join(found)

    # Waiting.

    def wait(
        self,
        condition: Callable[[], object],
        what: str,
        seconds: float = LONGEST,
        *,
        progress: Callable[[], object] | None = None,
    ) -> None:
        """`wait_until`, to which a Redis that is away is no answer. Raises Overdue."""

        def asked(question: Callable[[], object]) -> object:
            try:
                return question()
            except (LedgerUnavailable, redis.RedisError):
                return None

        wait_until(
            lambda: asked(condition),
            what,
            seconds,
            progress=None if progress is None else lambda: asked(progress),
        )

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Makes a call until Redis answers."""
        results: list[Result] = []
        self.wait(lambda: results.append(call()) or True, "Redis answers")  # type: ignore[func-returns-value]
        return results[0]

    def over(self, refuses: bool) -> None:
        """Waits until a fault is over: all workers are back and the job goes on.

        refuses: workers may have refused the job, as they should; then it is resumed.
        """
        assert self.leg is not None
        self.wait(self.ready, "all workers are back")
        self.goes_on(refuses)

    def goes_on(self, refuses: bool = False) -> None:
        """Waits until an image of the job that is under way is done that was not; or it is all done."""
        assert self.leg is not None
        before, job_id = self.left(), self.leg.job_id

        def more() -> bool:
            status = self.ledger.status(job_id)
            if status.refusals:
                assert refuses, status.refusals
                self.ledger.control(job_id, "resume")
            return status.left < before or before == 0

        self.wait(more, "the job goes on")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
