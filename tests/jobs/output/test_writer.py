"""Who writes an output in a bucket: one ledger at a time, by a real store and two that share nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import JobError, OutputError
from jobs.lock import lock_name, try_lock
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.output import Output
from jobs.output.tagged_object import Tag
from jobs.output.writer import WRITER, OutputWriter, Seen, Watch, Writer
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind
from tests.waiting import LONGEST

LEASE = 1.0


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(settled=0.1))


@pytest.fixture
def output(bucket: str) -> Output:
    return Output.at(f"s3://{bucket}/foxes")


def side(output: Output, ledger: str, job: str = "foxes-1", **keys: object) -> OutputWriter:
    """A side by its ledger's word; a job's incarnation is by default its own."""
    me = Writer(job=job, incarnation=f"{ledger}:{job}", lease=LEASE)
    return OutputWriter(output, replace(me, **keys), lambda: ledger)  # type: ignore[arg-type]


def told(_line: str) -> None:
    """What a command says goes nowhere."""


def kept(output: Output) -> dict[str, object]:
    found: dict[str, object] = json.loads(output.store.read(WRITER))
    return found


@contextmanager
def at_work(writer: OutputWriter) -> Iterator[None]:
    """Renews as a worker does, three times a lease."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE / 3):
            writer.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LONGEST)


def test_an_output_is_refused_while_another_ledgers_job_is_at_work(output: Output) -> None:
    ours, other, lines = side(output, "ours"), side(output, "other"), list[str]()
    ours.take(told)
    with at_work(ours), pytest.raises(JobError, match=r"foxes-1 of another Redis \(on .*\) is writing there"):
        other.take(lines.append)
    assert ["waiting for at most 1 s" in line for line in lines] == [True]
    ours.hold()


def test_a_silent_writer_is_taken_over_and_finds_it_out_before_it_gives_a_name(output: Output) -> None:
    ours, other = side(output, "ours"), side(output, "other", "cats-1")
    ours.hold()
    other.take(told)
    with pytest.raises(OutputError, match=r"cats-1 of another Redis .* since foxes-1 was begun"):
        ours.hold()
    ours.renew()
    assert "`imagemill cancel foxes-1`" in ours.trouble
    ours.free()
    other.hold()
    assert (kept(output)["job"], kept(output)["free"]) == ("cats-1", False)


def test_what_a_job_left_is_taken_at_once_and_names_no_host_any_more(output: Output) -> None:
    ours, other, lines = side(output, "ours"), side(output, "other"), list[str]()
    ours.take(told)
    assert kept(output)["host"]
    ours.free()
    assert (kept(output)["free"], kept(output)["host"]) == (True, "")
    other.take(lines.append)
    assert (kept(output)["ledger"], lines) == ("other", [])


def test_a_job_that_has_shards_does_not_come_back_after_another_ledgers(output: Output) -> None:
    ours, other = side(output, "ours"), side(output, "other")
    ours.take(told)
    ours.free()
    other.take(told)
    other.free()
    ours.renew()
    assert "since foxes-1 was begun" in ours.trouble
    with pytest.raises(JobError, match="since foxes-1 was begun"):
        ours.take(told, begun="foxes-1")
    with pytest.raises(OutputError, match="since foxes-1 was begun"):
        ours.hold()
    ours.hold(Watch(gaps=True))  # its finishing, which renders nothing
    assert kept(output)["ledger"] == "ours"


def test_the_next_job_of_a_ledger_does_not_wait_nor_does_one_whose_word_was_lost(output: Output) -> None:
    lines: list[str] = []
    side(output, "ours").take(told)
    side(output, "ours", "foxes-2").take(lines.append)
    renamed = side(output, "new", "foxes-2", incarnation="ours:foxes-2")
    renamed.hold()
    renamed.renew()
    renamed.renew()
    assert (kept(output)["ledger"], kept(output)["job"], lines) == ("new", "foxes-2", [])
    side(output, "ours").free()
    assert kept(output)["free"] is False  # a late end of the first


def test_of_two_that_take_an_output_at_once_one_is_refused(output: Output) -> None:
    silent = side(output, "dead")
    silent.take(told)
    ends: dict[str, BaseException | None] = {}

    def take(ledger: str) -> None:
        writer = side(output, ledger)
        try:
            writer.take(told)
            ends[ledger] = None
            writer.renew()
            writer.renew()
        except JobError as error:
            ends[ledger] = error

    threads = [threading.Thread(target=take, args=(ledger,)) for ledger in ("one", "two")]
    for thread in threads:
        thread.start()
    threads[0].join(LONGEST)
    threads[1].join(LONGEST)
    won = [ledger for ledger, error in ends.items() if error is None]
    assert (len(ends), kept(output)["ledger"]) == (2, won[-1])
    assert len(won) == 1


@pytest.mark.parametrize("action", [Action.LOSE_ANSWER, Action.CUT_BEFORE])
def test_an_answer_that_is_lost_counts_where_the_write_happened(
    output: Output, object_store: BreakableStore, action: Action
) -> None:
    ours = side(output, "ours")
    ours.hold()
    fault = Fault(action, frozenset({Kind.PUT}), keys="writer[.]json", count=1)
    object_store.order(fault)
    ours.bind("foxes-1", "other") if action is Action.LOSE_ANSWER else None
    ours.hold()
    assert kept(output)["job"] == "foxes-1"


def test_what_a_command_wrote_is_its_own_also_where_the_answer_was_lost(
    output: Output, object_store: BreakableStore
) -> None:
    """It may end while its thread renews, or not know whether its last write happened."""
    ours = side(output, "ours")
    ours.take(told)
    object_store.order(Fault(Action.LOSE_ANSWER, frozenset({Kind.PUT}), r"writer\.json$", count=1))
    object_store.order(
        Fault(Action.ANSWER, frozenset({Kind.GET}), r"writer\.json$", status=403, skip=1, count=1)
    )
    with pytest.raises(PermissionError):
        ours.renew()
    ours.free(ours.is_as_left)
    assert kept(output)["free"] is True


def test_the_object_has_the_longest_lease_of_those_who_renew_it(output: Output) -> None:
    """A command's is often shorter than its workers', who have not renewed it yet when that is over."""
    command, slow, fast = side(output, "ours"), *(side(output, "ours", lease=lease) for lease in (60.0, 1.0))
    command.take(told)
    slow.hold()
    assert kept(output)["lease"] == 60
    fast.hold()
    fast.renew()
    command.bind("foxes-1", "ours:foxes-1")
    assert kept(output)["lease"] == 60
    side(output, "ours", "foxes-2").take(told)
    assert kept(output)["lease"] == LEASE


def test_what_is_no_writers_object_is_another_at_first_and_then_none(output: Output) -> None:
    for text in (b"\xff", b"[]", b'{"ledger": 3, "lease": NaN}', b"{" * 99_999):
        found = Writer.parse(text)
        assert (found.ledger, found.free, found.lease) == ("", False, 90.0)
    known = Writer.parse(b'{"ledger": "other", "job": "a\\u001b[31mb", "lease": 1e9, "later": 1}')
    assert (known.ledger, known.job, known.lease) == ("other", "a\\x1b[31mb", 90.0)
    output.store.replace(WRITER, b"rubbish")
    with pytest.raises(OutputError, match="a job of another Redis has had it"):
        side(output, "ours").hold()


def test_a_run_whose_lock_is_free_is_taken_over_at_once(output: Output, tmp_path: Path) -> None:
    killed, again, lines = side(output, "a", lock="L"), side(output, "b", lock="L"), list[str]()
    killed.take(told)
    side(output, "a").bind("foxes-1", "x")  # its worker, which knows no lock
    again.take(lines.append)
    assert (kept(output)["ledger"], lines) == ("b", [])
    files = [(tmp_path / name).open("w") for name in "ab"]
    assert all(try_lock(file.fileno()) for file in files)
    names = [lock_name(file.fileno()) for file in files]
    assert len({*names, ""}) == 3
    with (tmp_path / "a").open() as other:
        assert lock_name(other.fileno()) == ""
    for file in files:
        file.close()


def test_time_in_which_nothing_was_seen_does_not_count_and_a_clock_alone_is_asked() -> None:
    now = [100.0]
    watch, writer = Watch(lambda: now[0]), Writer(lease=10.0)
    first, second = Seen(writer, Tag("1", None)), Seen(writer, Tag("2", None))
    assert not watch.changed(first)
    for _ in range(4):
        now[0] += 2
        assert not watch.changed(first)
    assert watch.left(writer) == pytest.approx(3)
    now[0] += 30
    assert not watch.changed(first)
    assert watch.left(writer) == pytest.approx(11)
    assert watch.changed(second)
    assert not watch.changed(second)
    brief = Writer(lease=3.0)
    for _ in range(3):  # over a slow link a look takes longer than half of a short lease
        watch.changed(Seen(brief, Tag("3", None)))
        now[0] += 2
    assert watch.left(brief) < 0
    far = Watch(lambda: now[0], gaps=True)
    far.changed(first)
    now[0] += 30
    far.changed(first)
    assert far.left(writer) < 0


def test_a_store_that_ignores_the_condition_is_refused(output: Output, object_store: BreakableStore) -> None:
    object_store.check("nothing")
    with pytest.raises(OutputError, match=r"does not write on the condition .* \(If-Match\)"):
        side(output, "ours").take(told)
    assert [*output.store.files_below("")] == []


def test_an_output_that_nobody_shares_costs_a_look_for_each_name(
    output: Output, object_store: BreakableStore
) -> None:
    ours = side(output, "ours")
    ours.take(told)
    object_store.forget()
    ours.hold()
    assert (object_store.traffic().requests, object_store.traffic(Kind.GET).requests) == (1, 1)
    object_store.forget()
    for _ in range(3):  # the first finds its own last write
        ours.renew()
    assert object_store.traffic().requests == 6
    colleague = side(output, "ours")
    colleague.renew()
    object_store.forget()
    ours.renew()
    colleague.renew()
    assert object_store.traffic(Kind.PUT).requests == 1


def test_the_object_says_nothing_of_where_the_ledger_is(output: Output) -> None:
    side(output, "5f3a9c1e0b7d2a46").take(told)
    assert kept(output).keys() == {
        "ledger", "job", "incarnation", "host", "lease", "lock", "free", "beat",
    }  # fmt: skip
