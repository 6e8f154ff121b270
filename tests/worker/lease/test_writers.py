"""A claim's output in a bucket is its ledger's, or nothing gets a name there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from jobs.errors import OutputError
from jobs.ledger.job import Claim
from jobs.ledger.ledger import Ledger
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.output import Output
from jobs.output.writer import WRITER, OutputWriter, Writer
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault
from tests.waiting import WaitUntil
from worker.lease.heartbeat import Heartbeat
from worker.lease.lease import Lease
from worker.lease.writers import Writers

LEASE: Final = 1.0
Begun = Callable[..., Lease]
SHARD = Claim("shard", "foxes-1", "incarnation", "3", "000001-aa", b"")
FINISHING = Claim("finish", "foxes-1", "incarnation", "finish", "000002-aa", b"")


class Word(Ledger):
    """A ledger of which nothing is asked but its word."""

    def word(self) -> str:
        return "5f3a9c1e0b7d2a46"


class Held(Heartbeat):
    """A heartbeat of a claim that is held."""

    def renew(self) -> None:
        """Does nothing."""


@pytest.fixture
def output(bucket: str) -> Output:
    return Output.at(f"s3://{bucket}/foxes")


@pytest.fixture
def writers() -> Writers:
    return Writers(Word("redis://127.0.0.1:1/0"), lease=LEASE)


@pytest.fixture
def a_lease() -> Iterator[Begun]:
    """Makes leases; what they hold is renewed no more after the test."""
    made: list[tuple[Writers, Claim]] = []

    def make(writers: Writers, output: Output, claim: Claim = SHARD) -> Lease:
        made.append((writers, claim))
        ledger = Word("redis://127.0.0.1:1/0")
        heartbeat = Held(ledger, "w1", lease=LEASE, models=(), facts=dict, top_up=lambda _waiting: None)
        heartbeat.hold(claim)
        return Lease(
            claim,
            ledger=ledger,
            heartbeat=heartbeat,
            worker="w1",
            stop=threading.Event(),
            writing=writers.of(claim, output.label),
        )

    yield make
    for writers, claim in made:
        writers.drop(claim)


def another(output: Output) -> OutputWriter:
    return OutputWriter(output, Writer(job="cats-1", incarnation="c", lease=LEASE), lambda: "other")


def taken_over(output: Output) -> OutputWriter:
    """Another ledger has the output, after it saw nothing of the first for as long as it must."""
    other = another(output)
    output.store.remove(WRITER)
    other.take(lambda _line: None)
    return other


def test_a_name_is_given_only_while_the_output_is_this_ledgers(
    a_lease: Begun, writers: Writers, output: Output
) -> None:
    lease = a_lease(writers, output)
    lease.begin()
    lease.confirm()
    taken_over(output)
    with pytest.raises(OutputError, match=r"cats-1 of another Redis .* since foxes-1 was begun"):
        lease.confirm()


def test_a_worker_renews_what_it_writes_and_finds_out_who_took_it(
    a_lease: Begun, writers: Writers, output: Output, wait_until: WaitUntil
) -> None:
    lease = a_lease(writers, output)
    lease.begin()
    first = output.read_json(WRITER)["beat"]
    wait_until(lambda: output.read_json(WRITER)["beat"] != first, "it is renewed")
    lease.check()
    taken_over(output)

    def ended() -> bool:
        try:
            lease.check()
        except OutputError:
            return True
        return False

    wait_until(ended, "what was rendered is given up")


def test_a_store_that_gives_no_answer_for_one_output_keeps_no_other_from_being_renewed(
    a_lease: Begun,
    bucket: str,
    object_store: BreakableStore,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A request that hangs lasts for longer than this test.
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request=600, repeated=600))
    writers = Writers(Word("redis://127.0.0.1:1/0"), lease=LEASE)
    first, second = (Output.at(f"s3://{bucket}/{name}") for name in ("foxes", "hares"))
    for output in (first, second):
        a_lease(writers, output).begin()
    hangs = object_store.order(Fault(Action.HANG, keys="foxes/", seconds=600))
    wait_until(lambda: object_store.taken(hangs), "the first output is asked for")
    for _ in range(2):
        beat = second.read_json(WRITER)["beat"]
        wait_until(lambda beat=beat: second.read_json(WRITER)["beat"] != beat, "the second is renewed", 60)


def test_a_shard_that_begins_soon_after_another_asks_nothing(
    a_lease: Begun, output: Output, object_store: BreakableStore
) -> None:
    writers = Writers(Word("redis://127.0.0.1:1/0"), lease=60 * LEASE)
    a_lease(writers, output).begin()
    object_store.forget()
    a_lease(writers, output).begin()
    assert object_store.traffic().requests == 0


def test_a_finishing_takes_what_another_ledger_left_and_leaves_it_in_its_turn(
    a_lease: Begun, writers: Writers, output: Output
) -> None:
    other = another(output)
    other.take(lambda _line: None)
    with pytest.raises(OutputError, match="cats-1 of another Redis"):
        a_lease(writers, output, FINISHING).begin()
    other.free()
    with pytest.raises(OutputError, match="cats-1 of another Redis"):
        a_lease(writers, output).begin()
    lease = a_lease(writers, output, FINISHING)
    lease.begin()
    assert output.read_json(WRITER)["job"] == "foxes-1"
    lease.writing.end()
    assert output.read_json(WRITER)["free"] is True
