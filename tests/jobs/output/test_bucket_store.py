"""A bucket: a shard gets its name once, whatever the way to the store does to the requests."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.location import BucketPlace
from jobs.output.bucket_store import BucketStore
from jobs.output.store import StageClosed, Unreachable
from tests.jobs.output.buckets import (
    LARGE,
    SMALL,
    TAR,
    be_patient,
    committed,
    file,
    staged,
)
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind
from tests.waiting import LONGEST

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def judge(object_store: BreakableStore, bucket: str) -> Callable[[], dict[str, bytes]]:
    """What the bucket holds, asked past the faults."""

    def look() -> dict[str, bytes]:
        object_store.withdraw()
        store = BucketStore(BucketPlace("s3", bucket, "out"))
        return {name: store.read(name) for name in store.files_below("")}

    return look


FAULTS = {
    "503 for a while": Fault(Action.ANSWER, status=503, count=3),
    "429 for a while": Fault(Action.ANSWER, status=429, count=3),
    "an error in an answer of 200": Fault(
        Action.ERROR_IN_200, frozenset({Kind.COPY, Kind.COMPLETE_UPLOAD}), count=2
    ),
    "cut before": Fault(Action.CUT_BEFORE, count=4),
    "cut before, in good order": Fault(Action.CUT_BEFORE, count=4, resets=False),
    "cut in the request": Fault(Action.CUT_REQUEST, count=4),
    "cut in the answer": Fault(Action.CUT_RESPONSE, count=4),
    **{
        f"answer to {kind.value} lost{how}": Fault(
            Action.LOSE_ANSWER, frozenset({kind}), count=2, resets=not how
        )
        for kind in (
            Kind.PUT,
            Kind.CREATE_UPLOAD,
            Kind.UPLOAD_PART,
            Kind.COMPLETE_UPLOAD,
            Kind.COPY,
            Kind.HEAD,
        )
        for how in ("", " in good order")
    },
    "answer to the deletion lost": Fault(Action.LOSE_ANSWER, frozenset({Kind.DELETE}), count=9),
    "deletion refused": Fault(Action.ANSWER, frozenset({Kind.DELETE}), status=503, count=40),
    "copy lost, then said to be taken": Fault(Action.LOSE_ANSWER, frozenset({Kind.COPY}), count=1),
}


_IN_PARTS = ("create_upload", "upload_part", "complete_upload", "request", "503", "200")
"""Faults that matter to what is uploaded in parts."""


@pytest.mark.parametrize(
    ("name", "contents"),
    [pytest.param(name, SMALL, id=name) for name in FAULTS if "_upload" not in name and "_part" not in name]
    + [
        pytest.param(name, LARGE, id=f"large, {name}")
        for name in FAULTS
        if any(part in name for part in _IN_PARTS)
    ],
)
def test_a_shard_is_there_once_and_whole_after_any_fault(
    object_store: BreakableStore,
    store: BucketStore,
    tmp_path: Path,
    judge: Callable[[], dict[str, bytes]],
    name: str,
    contents: bytes,
) -> None:
    store.check_can_put_if_absent(tmp_path)
    object_store.order(FAULTS[name])
    assert committed(store, staged(tmp_path), contents) in {"put", "there"}
    held = judge()
    assert held[TAR] == contents
    assert all(name.startswith(".imagemill/uploads/") for name in held if name != TAR)


@pytest.mark.parametrize("checks", ["copies", "parts"])
@pytest.mark.parametrize("contents", [SMALL, LARGE], ids=["small", "large"])
def test_of_two_attempts_at_once_one_wins_and_neither_is_mixed(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, checks: str, contents: bytes
) -> None:
    object_store.check(checks)
    store.check_can_put_if_absent(tmp_path)
    together = threading.Barrier(4)
    ended: dict[str, str] = {}

    def commit(name: str) -> None:
        def confirm() -> None:
            together.wait(LONGEST)

        ended[name] = committed(store, staged(tmp_path, name, confirm), contents + name.encode())

    threads = [threading.Thread(target=commit, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended.values()) == ["put", "there", "there", "there"]
    [winner] = [name for name, how in ended.items() if how == "put"]
    assert store.read(TAR) == contents + winner.encode()
    assert [*store.files_below("")] == [TAR]


@pytest.mark.parametrize("kind", [Kind.COPY, Kind.COMPLETE_UPLOAD])
@pytest.mark.parametrize("status", [412, 404])
def test_a_copy_that_happened_and_is_denied_when_it_is_asked_for_again_counts(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, kind: Kind, status: int
) -> None:
    object_store.check("copies" if kind is Kind.COPY else "parts")
    store.check_can_put_if_absent(tmp_path)
    kinds = frozenset({kind})
    object_store.order(Fault(Action.LOSE_ANSWER, kinds, TAR, count=1))
    object_store.order(Fault(Action.ANSWER, kinds, TAR, count=1, status=status))
    assert committed(store, staged(tmp_path), SMALL) == "there"
    assert store.read(TAR) == SMALL


def test_a_name_that_a_store_calls_taken_and_has_not_is_asked_for_again(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    store.check_can_put_if_absent(tmp_path)
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.COPY}), TAR, count=1, status=412))
    stage = staged(tmp_path)
    with pytest.raises(Unreachable, match="is being written"):
        store.put_if_absent(TAR, file(stage, SMALL), stage)
    assert committed(store, stage, SMALL) == "put"


def test_what_arrives_late_under_a_name_of_an_upload_is_not_what_is_copied(
    object_store: BreakableStore,
    store: BucketStore,
    tmp_path: Path,
    wait_until: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An upload that was given up reaches the store after another job has closed the stages."""
    be_patient(monkeypatch, request=1, repeated=10)
    store.check_can_put_if_absent(tmp_path)
    late = object_store.order(
        Fault(Action.DELAY, frozenset({Kind.PUT}), "uploads/.*tar$", count=1, seconds=2)
    )

    def closed_meanwhile() -> None:
        store.close_stages()
        wait_until(lambda: [*store.files_below(".imagemill/uploads")], "the late upload is there")

    stage = staged(tmp_path, confirm=closed_meanwhile)
    with pytest.raises(StageClosed):
        store.put_if_absent(TAR, file(stage, SMALL), stage)
    assert object_store.taken(late) == 1
    assert not store.exists(TAR)


def test_a_large_file_whose_upload_is_gone_is_not_taken_for_the_one_that_it_replaces(
    object_store: BreakableStore, store: BucketStore
) -> None:
    """Both have the same size."""
    store.replace(TAR, LARGE)
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.COMPLETE_UPLOAD}), status=404, count=1))
    store.replace(TAR, LARGE[::-1])
    assert store.read(TAR) == LARGE[::-1]


def test_a_large_file_that_replaced_another_one_is_there_though_no_answer_said_so(
    object_store: BreakableStore, store: BucketStore
) -> None:
    store.replace(TAR, LARGE)
    ends = frozenset({Kind.COMPLETE_UPLOAD})
    object_store.order(Fault(Action.LOSE_ANSWER, ends, count=1))
    object_store.order(Fault(Action.ANSWER, ends, status=404, count=1))
    object_store.forget()
    store.replace(TAR, LARGE[::-1])
    assert store.read(TAR) == LARGE[::-1]
    assert object_store.traffic(Kind.CREATE_UPLOAD).requests == 1


def test_an_upload_that_is_not_whole_gets_no_name(store: BucketStore, tmp_path: Path) -> None:
    def spoil() -> None:
        [upload] = store.files_below(".imagemill/uploads")
        store.replace(upload, SMALL[:-1])

    stage = staged(tmp_path, confirm=spoil)
    with pytest.raises(Unreachable, match="has 4 of the 5 bytes sent"):
        store.put_if_absent(TAR, file(stage, SMALL), stage)
    assert [*store.files_below("")] == []


def test_a_tar_that_the_store_cannot_copy_is_refused_before_it_is_uploaded(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    stage = staged(tmp_path)
    huge = file(stage, b"")
    os.truncate(huge, (5 << 30) + 1)
    object_store.forget()
    with pytest.raises(OSError, match="take a smaller shard_size") as raised:
        store.put_if_absent(TAR, huge, stage)
    assert raised.value.errno == errno.EFBIG
    assert object_store.traffic().requests == 0


def test_stages_of_earlier_jobs_are_taken_away(store: BucketStore, tmp_path: Path) -> None:
    store.replace(".imagemill/uploads/00001/000001-a/1234/00001.tar", b"left by a worker that was killed")
    store.replace(TAR, SMALL)
    store.close_stages()
    assert [*store.files_below("")] == [TAR]


STAGED = ".imagemill/uploads/00001/000001-a/new-0badcafe/00001.tar"
LONG = bytes(512 << 10)


def test_closing_the_stages_lasts_as_long_as_a_copy_of_what_lay_there_may(store: BucketStore) -> None:
    store.replace(STAGED, LONG)
    waits: list[float] = []
    store.close_stages(waits.append)
    assert waits == [len(LONG) / (10 << 20)]
    assert [*store.files_below("")] == []
    store.close_stages(waits.append)
    assert len(waits) == 1, "nothing was left"


def test_who_closes_the_stages_after_one_that_was_stopped_waits_in_its_place(store: BucketStore) -> None:
    store.replace(STAGED, LONG)

    def stopped(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.close_stages(stopped)
    assert not store.exists(STAGED), "no copy begins any more"
    waits: list[float] = []
    store.close_stages(waits.append)
    assert waits == [1.0], "the next whole second"
    assert [*store.files_below("")] == []


def test_no_copy_is_waited_for_whose_name_is_taken(store: BucketStore) -> None:
    store.replace("00001.tar", SMALL)
    store.replace(STAGED, LONG)
    waits: list[float] = []
    store.close_stages(waits.append)
    assert waits == []
    assert [*store.files_below("")] == ["00001.tar"]


def test_a_report_may_always_be_copied_over_another(store: BucketStore) -> None:
    store.replace("job.json", SMALL)
    store.replace(".imagemill/uploads/finish/1/over-0badcafe/job.json", LONG)
    waits: list[float] = []
    store.close_stages(waits.append)
    assert len(waits) == 1


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_on_its_way_says_which_name_it_is_to_get(
    store: BucketStore, tmp_path: Path, overwrite: bool
) -> None:
    """So that the closing of the stages knows for what it waits."""
    waits: list[float] = []
    store.replace("a/00003.tar", SMALL)

    def closed_meanwhile() -> None:
        store.close_stages(waits.append)

    stage = staged(tmp_path, confirm=closed_meanwhile)
    with pytest.raises(StageClosed):
        if overwrite:
            store.replace("a/00003.tar", LARGE, stage)
        else:
            store.put_if_absent("a/00003.tar", file(stage, LARGE), stage)
    assert len(waits) == (1 if overwrite else 0)


def test_a_late_removal_hits_no_file_of_a_newer_job(store: BucketStore, tmp_path: Path) -> None:
    """The process sleeps after its lease was confirmed, and the newer job writes then."""
    store.replace("failures.jsonl", b"of an earlier job")

    def slept() -> None:
        store.close_stages(lambda _: None)
        store.replace("failures.jsonl", b"of the newer one")

    with pytest.raises(StageClosed):
        store.remove("failures.jsonl", staged(tmp_path, confirm=slept))
    assert store.read("failures.jsonl") == b"of the newer one"


def test_a_removal_of_nothing_takes_one_request(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    stage = staged(tmp_path)
    store.replace("failures.jsonl", SMALL, stage)
    store.remove("failures.jsonl", stage)
    assert store.read("failures.jsonl") == b""
    object_store.forget()
    store.remove("failures.jsonl", stage)
    store.remove("preview.jpg", stage)
    assert object_store.traffic().requests == object_store.traffic(Kind.HEAD).requests == 2
