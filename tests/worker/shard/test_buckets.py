"""How many slots a job's forwards have: real ledger and engine; only the device is a stand-in."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.adapters import LORAS
from jobs.errors import LeaseLost, ModelError, OtherHardware, OutputError
from jobs.ledger.job import Claim, WorkerState
from jobs.ledger.ledger import Ledger
from jobs.output.output import Output
from jobs.request import ImageRequest
from jobs.settings import Settings
from tests.waiting import LONGEST
from worker.engine.engine import Engine
from worker.engine.renderer import AskedT, Bucket, OutOfMemory, Pipeline, Source
from worker.engine.request_queue import Order, Outcome
from worker.lease.disk_space import DiskSpace
from worker.lease.heartbeat import Heartbeat
from worker.lease.lease import GiveBack, Lease
from worker.renderers.instant import InstantRenderer
from worker.shard.buckets import Buckets
from worker.shard.workplace import Workplace

Submit = Callable[..., str]
SQUARE = ImageRequest(prompt="a fox", seed=0, height=64, width=64, model="instant", revision="instant-1")
WIDE = ImageRequest(prompt="a fox", seed=0, height=64, width=128, model="instant", revision="instant-1")


class Card(InstantRenderer):
    """A device that measures `best` slots and has memory for `room`."""

    def __init__(self, device: str, best: int, room: int) -> None:
        super().__init__(0)
        self.device, self._best, self._room = device, best, room
        self.measured: list[tuple[int, int]] = []

    def measure_slots(self, height: int, width: int) -> int:
        self.measured.append((height, width))
        return self._best

    def render(self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]) -> Iterator[Any]:
        if bucket.slots > self._room:
            source.take(bucket.slots)
            raise OutOfMemory(f"no room for {bucket.slots} slots")
        yield from super().render(bucket, source, stop)


class Machine:
    """A worker process with a device of its own; `buckets` are those of the claim that it holds."""

    def __init__(
        self, ledger: Ledger, device: str = "card", *, best: int = 16, room: int = 1024, **settings: object
    ) -> None:
        self.card = Card(device, best, room)
        self.ledger = ledger
        self.loading = threading.Event()
        self.loading.set()
        self.engine = Engine(self._load, writers=1)
        self.engine.start()
        self.heartbeat = Heartbeat(
            ledger, device, lease=30, models=(), facts=dict, top_up=lambda _count: None
        )
        self.stop = threading.Event()
        space, chosen = DiskSpace(0, self.stop), Settings(**settings)  # type: ignore[arg-type]
        self._workplace = Workplace(self.engine, Path("/"), space, chosen)

    def _load(self, _pipeline: Pipeline) -> Card:
        self.loading.wait(LONGEST)
        return self.card

    def claim(self) -> Claim:
        found = self.ledger.claim("w", WorkerState(idle_ms=9000), lease=30)
        assert found is not None
        self.heartbeat.hold(found)
        return found

    def buckets(self, claim: Claim | None = None) -> Buckets:
        held = self.claim() if claim is None else claim
        lease = Lease(held, ledger=self.ledger, heartbeat=self.heartbeat, worker="w", stop=self.stop)
        spec = self.ledger.spec(held.job_id)
        return Buckets(lease, spec, self._workplace, with_space=lambda write: write())

    def render(self, bucket: Bucket) -> Outcome:
        """One picture in a bucket, as the engine delivers it."""
        delivered: list[Outcome] = []
        came = threading.Event()

        def deliver(outcome: Outcome) -> None:
            delivered.append(outcome)
            came.set()

        self.engine.submit([Order(bucket, SQUARE, None, deliver)])
        assert came.wait(LONGEST)
        return delivered[0]


@pytest.fixture
def submit_job(submit_job: Submit, tmp_path: Path) -> Submit:
    """Stores a job whose output, `out` or what is named, is a folder that exists."""

    def submit(shards: int = 1, *, output: str = "out", **changes: object) -> str:
        folder = tmp_path / output
        Output(folder).prepare()
        return submit_job(shards, output=str(folder), **changes)

    return submit


@pytest.fixture
def machine(ledger: Ledger) -> Iterator[Callable[..., Machine]]:
    """Starts a worker process with a stand-in device."""
    machines: list[Machine] = []

    def start(*device: str, **how: object) -> Machine:
        machines.append(Machine(ledger, *device, **how))  # type: ignore[arg-type]
        return machines[-1]

    yield start
    for one in machines:
        one.loading.set()
        one.engine.close()


Start = Callable[..., Machine]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the buckets warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "worker.shard.buckets"]


def test_the_first_answer_holds_for_every_worker_of_a_job(machine: Start, submit_job: Submit) -> None:
    submit_job(2)
    first, second = machine(best=8), machine(best=32)
    bucket = first.buckets().of(SQUARE)
    assert bucket == Bucket(Pipeline("instant", "instant-1", "auto"), 64, 64, slots=8, mode="exact")
    assert second.buckets().of(SQUARE) == bucket
    assert (first.card.measured, second.card.measured) == ([(64, 64)], [])


def test_each_size_is_measured_once_a_shard_asks_for_it(machine: Start, submit_job: Submit) -> None:
    submit_job(1)
    one = machine(best=8)
    buckets = one.buckets()
    assert [buckets.of(request).width for request in (SQUARE, WIDE, SQUARE)] == [64, 128, 64]
    assert one.card.measured == [(64, 64), (64, 128)]


def test_images_that_carry_other_adapters_have_a_bucket_of_their_own_of_as_many_slots(
    machine: Start, submit_job: Submit
) -> None:
    submit_job(1)
    one = machine(best=8)
    buckets = one.buckets()
    lora = [{"name": "pixel art", "sha256": "a" * 64, "scale": 0.8}]
    carrying = replace(SQUARE, loras=LORAS.of_text(json.dumps(lora)))
    assert buckets.of(carrying) == replace(buckets.of(SQUARE), adapters=carrying.adapters)
    assert one.card.measured == [(64, 64)]


def test_what_was_measured_is_remembered_for_the_next_job_of_the_same_kind(
    machine: Start, submit_job: Submit
) -> None:
    submit_job(1, output="a", name="a")
    submit_job(1, output="b", name="b")
    submit_job(1, output="c", name="c", revision="instant-2")
    machine(best=8).buckets().of(SQUARE)
    same, other = machine(best=32), machine("other card", best=4)
    found = [same.claim(), same.claim()]
    of_job = {claim.job_id: claim for claim in found}
    assert same.buckets(of_job["b-1"]).of(SQUARE).slots == 8
    assert same.card.measured == []
    assert same.buckets(of_job["c-1"]).of(SQUARE).slots == 32
    submit_job(1, output="d", name="d")
    assert other.buckets().of(SQUARE).slots == 4


def test_slots_that_are_asked_for_are_taken_unmeasured_and_not_remembered(
    machine: Start, submit_job: Submit
) -> None:
    submit_job(2, output="a", name="a")
    asking, joining = machine(batch_size=6), machine(best=32)
    assert asking.buckets().of(SQUARE).slots == 6
    assert asking.card.measured == []
    assert joining.buckets().of(SQUARE).slots == 6
    submit_job(1, output="b", name="b")
    assert joining.buckets().of(SQUARE).slots == 32
    assert joining.card.measured == [(64, 64)]


def test_slots_that_are_asked_for_yield_to_those_of_the_job_with_one_warning(
    machine: Start, submit_job: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    submit_job(3)
    machine(batch_size=6).buckets().of(SQUARE)
    assert warnings(caplog) == []
    asking = machine(batch_size=10)
    for _shard in range(2):
        assert asking.buckets().of(SQUARE).slots == 6
    [found] = warnings(caplog)
    assert "--batch-size 10 is not taken" in found
    assert "6 slots" in found


def test_with_mixed_hardware_slots_that_are_asked_for_are_taken_whatever_the_job_has(
    machine: Start, submit_job: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    submit_job(3)
    machine(batch_size=6).buckets().of(SQUARE)
    assert machine(batch_size=10, mixed_hardware=True).buckets().of(SQUARE).slots == 10
    assert machine(best=32).buckets().of(SQUARE).slots == 6
    assert warnings(caplog) == []


def test_an_output_goes_on_with_its_slots_when_redis_is_gone(
    machine: Start, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(1, name="a")
    machine(best=8).buckets().of(SQUARE)
    ledger.client.flushall()
    submit_job(1, name="b")
    again = machine(best=32)
    buckets = again.buckets()
    assert (buckets.of(SQUARE).slots, buckets.of(WIDE).slots) == (8, 32)
    assert again.card.measured == [(64, 128)]
    ledger.client.flushall()
    submit_job(1, name="c")
    buckets = machine(best=2).buckets()
    assert (buckets.of(SQUARE).slots, buckets.of(WIDE).slots) == (8, 32)


def test_an_outputs_slots_are_those_of_a_device_and_a_model(
    machine: Start, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(1)
    machine("card A", best=8).buckets().of(SQUARE)
    for device, revision in (("card B", "instant-1"), ("card A", "instant-2")):
        ledger.client.flushall()
        submit_job(1, revision=revision)
        assert machine(device, best=32).buckets().of(SQUARE).slots == 32


def test_an_outputs_slots_come_before_what_another_job_measured_and_are_not_remembered(
    machine: Start, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(1, output="a", name="a")
    machine(best=8).buckets().of(SQUARE)
    ledger.client.flushall()
    submit_job(1, output="b", name="b")
    one = machine(best=32)
    one.buckets().of(SQUARE)
    submit_job(1, output="a", name="a")
    assert one.buckets().of(SQUARE).slots == 8
    submit_job(1, output="c", name="c")
    assert one.buckets().of(SQUARE).slots == 32


def test_slots_that_are_asked_for_override_an_outputs_with_a_warning_and_change_them_not(
    machine: Start, ledger: Ledger, submit_job: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    submit_job(1)
    machine(best=8).buckets().of(SQUARE)
    ledger.client.flushall()
    submit_job(1)
    assert machine(batch_size=4).buckets().of(SQUARE).slots == 4
    [found] = warnings(caplog)
    assert "--batch-size 4 is taken" in found
    assert "8 slots" in found
    ledger.client.flushall()
    submit_job(1)
    assert machine(best=32).buckets().of(SQUARE).slots == 8


@pytest.mark.parametrize("written", ["{", "[1]", '[{"rows": 0}]', '[{"rows": 4}]'])
def test_slots_of_an_output_that_cannot_be_read_are_reported_with_the_file_and_the_remedy(
    machine: Start, submit_job: Submit, tmp_path: Path, written: str
) -> None:
    submit_job(1)
    file = tmp_path / "out" / ".imagemill" / "rows.json"
    file.write_text(written)
    with pytest.raises(OutputError, match="remove it") as caught:
        machine().buckets().of(SQUARE)
    assert str(file) in str(caught.value)


def test_the_kind_of_a_device_is_asked_once_in_a_process(
    machine: Start, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_job(2)
    one = machine()
    asked: list[object] = []
    ask = one.engine.ask
    monkeypatch.setattr(one.engine, "ask", lambda *question: asked.append(question) or ask(*question))
    one.buckets().of(SQUARE)
    assert len(asked) == 2, "which device it is, and what it measures"
    one.buckets().of(SQUARE)
    assert len(asked) == 2


def test_another_kind_of_device_is_refused_by_name_with_the_remedy_and_measures_nothing(
    machine: Start, submit_job: Submit
) -> None:
    job_id = submit_job(2)
    machine("card A").buckets().of(SQUARE)
    other = machine("card B", batch_size=4)
    with pytest.raises(OtherHardware) as caught:
        other.buckets().of(SQUARE)
    message = str(caught.value)
    assert all(word in message for word in (job_id, "card A in fp32", "card B in fp32", "--mixed-hardware"))
    assert other.card.measured == []


def test_with_mixed_hardware_it_joins_with_slots_of_its_own_and_locks_nobody_out(
    machine: Start, submit_job: Submit
) -> None:
    submit_job(4)
    first, joining = machine("card A", best=8), machine("card B", best=4, mixed_hardware=True)
    first.buckets().of(SQUARE)
    assert joining.buckets().of(SQUARE).slots == 4
    assert joining.buckets().of(WIDE).slots == 4
    # The worker that began the job goes on with a size that only the other had so far.
    assert first.buckets().of(WIDE).slots == 8


def test_slots_the_memory_has_no_room_for_are_capped_in_the_job_and_nowhere_else(
    machine: Start, ledger: Ledger, submit_job: Submit
) -> None:
    submit_job(2, output="a", name="a")
    small, large = machine(best=16, room=4), machine(best=16)
    buckets = small.buckets()
    bucket = buckets.of(SQUARE)
    outcome = small.render(bucket)
    assert outcome.rendered_by.rows == 4  # type: ignore[union-attr]
    buckets.report_caps()
    assert large.buckets().of(SQUARE).slots == 4
    submit_job(1, output="b", name="b")
    assert large.buckets().of(SQUARE).slots == 16
    assert large.card.measured == []
    ledger.client.flushall()
    submit_job(1, output="a", name="a")
    assert machine(best=64).buckets().of(SQUARE).slots == 16


def test_a_cap_that_does_not_reach_the_ledger_hides_nothing(
    machine: Start, ledger: Ledger, submit_job: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    submit_job(1)
    one = machine(best=16, room=4)
    buckets = one.buckets()
    one.render(buckets.of(SQUARE))
    ledger.client.flushall()
    buckets.report_caps()
    assert "only 4 slots fit" in warnings(caplog)[-1]


def test_where_nothing_ran_out_no_cap_is_reported(machine: Start, submit_job: Submit) -> None:
    submit_job(2)
    one = machine(best=16)
    buckets = one.buckets()
    one.render(buckets.of(SQUARE))
    buckets.report_caps()
    assert one.buckets().of(SQUARE).slots == 16


def test_a_lost_lease_settles_nothing(machine: Start, ledger: Ledger, submit_job: Submit) -> None:
    submit_job(1)
    late = machine(best=8)
    claim = late.claim()
    buckets = late.buckets(claim)
    ledger.release(claim)
    with pytest.raises(LeaseLost):
        buckets.of(SQUARE)
    assert machine(best=32).buckets().of(SQUARE).slots == 32


def test_a_worker_that_is_told_to_stop_waits_for_no_model_to_load(machine: Start, submit_job: Submit) -> None:
    submit_job(1)
    one = machine()
    one.loading.clear()
    threading.Timer(0.2, one.stop.set).start()
    with pytest.raises(GiveBack, match="released"):
        one.buckets().of(SQUARE)


def test_the_jobs_mode_is_its_buckets(machine: Start, submit_job: Submit) -> None:
    submit_job(1, mode="fast")
    assert machine().buckets().of(SQUARE).mode == "fast"


def test_a_worker_without_compel_takes_no_image_in_its_syntax(
    machine: Start, submit_job: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_job(1)
    buckets = machine().buckets()
    asked = replace(SQUARE, syntax="compel")
    assert buckets.of(asked) == buckets.of(SQUARE)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'imagemill\[prompts\]'"):
        buckets.of(asked)
    assert buckets.of(replace(SQUARE, syntax="a1111")) == buckets.of(SQUARE)
