"""A bucket: a shard gets its name once, whatever the way to the store does to the requests."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output import bucket_client
from jobs.output.bucket_client import Patience
from jobs.output.bucket_store import BucketStore
from jobs.output.output import Output
from jobs.output.store import Stage, StageClosed, Unreachable
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import OBJECTS, Action, Fault, Kind
from tests.ports import free_port
from tests.waiting import LONGEST

SMALL, LARGE = b"a tar", os.urandom(9 << 20)
"""Less and more than a part of an upload."""
TAR = "00003.tar"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch, request=3, repeated=2)


def be_patient(monkeypatch: pytest.MonkeyPatch, *, request: int, repeated: int) -> None:
    pauses = (0.05, 0.1, 0.2, 0.4, 0.8)
    monkeypatch.setattr(bucket_client, "PATIENCE", Patience(request, repeated, pauses, settled=0.1))


@pytest.fixture
def store(object_store: BreakableStore, bucket: str) -> BucketStore:
    object_store.check("copies")
    return BucketStore(BucketPlace("s3", bucket, "out"))


@pytest.fixture
def judge(object_store: BreakableStore, bucket: str) -> Callable[[], dict[str, bytes]]:
    """What the bucket holds, asked past the faults."""

    def look() -> dict[str, bytes]:
        object_store.withdraw()
        store = BucketStore(BucketPlace("s3", bucket, "out"))
        return {name: store.read(name) for name in store.files_below("")}

    return look


def staged(folder: Path, name: str = "a", confirm: Callable[[], None] = lambda: None) -> Stage:
    (folder / name).mkdir(parents=True, exist_ok=True)
    return Stage(folder / name, f"00003/000001-{name}", confirm)


def file(stage: Stage, contents: bytes) -> Path:
    path = stage.folder / TAR
    path.write_bytes(contents)
    return path


def committed(store: BucketStore, stage: Stage, contents: bytes) -> str:
    """What a worker does: it tries again while there is no answer; what is there already was committed."""
    for _ in range(4):
        try:
            store.put_if_absent(TAR, file(stage, contents), stage)
        except Unreachable:
            continue
        except FileExistsError:
            return "there"
        return "put"
    return "away"


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
        Fault(Action.DELAY, frozenset({Kind.PUT}), "uploads/.*tar$", count=1, seconds=4)
    )

    def closed_meanwhile() -> None:
        store.close_stages()
        wait_until(lambda: [*store.files_below(".imagemill/uploads")], "the late upload is there")

    stage = staged(tmp_path, confirm=closed_meanwhile)
    with pytest.raises(StageClosed):
        store.put_if_absent(TAR, file(stage, SMALL), stage)
    assert object_store.taken(late) == 1
    assert not store.exists(TAR)


def test_a_store_that_does_not_answer_is_said_to_be_unreachable_and_asked_again_later(
    object_store: BreakableStore, store: BucketStore
) -> None:
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.HEAD, Kind.LIST})))
    for ask in (lambda: store.exists(TAR), lambda: [*store.list()]):
        with pytest.raises(Unreachable, match="503") as raised:
            ask()
        assert str(raised.value.filename).startswith(store.label)
    object_store.withdraw()
    assert not store.exists(TAR)


def test_a_request_that_hangs_is_given_up_and_made_again(
    object_store: BreakableStore, store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch, request=1, repeated=10)
    store.replace("job.json", b"1")
    object_store.order(Fault(Action.HANG, OBJECTS, seconds=60, count=1))
    assert store.read("job.json") == b"1"


def test_a_refusal_is_no_silence_and_ends_with_its_cause(
    object_store: BreakableStore, store: BucketStore
) -> None:
    store.replace("job.json", b"1")
    object_store.order(Fault(Action.ANSWER, status=403))
    asks: list[Callable[[], object]] = [
        lambda: store.read("job.json"),
        lambda: store.exists("job.json"),
        lambda: [*store.list()],
        lambda: [*store.files_below("")],
        lambda: store.replace("job.json", b"2"),
        lambda: store.remove("job.json"),
    ]
    for ask in asks:
        with pytest.raises(PermissionError, match="the store refuses it"):
            ask()
    object_store.withdraw()
    assert store.read("job.json") == b"1"


def test_a_listing_of_several_pages_goes_on_where_it_was_cut(
    object_store: BreakableStore, store: BucketStore
) -> None:
    for number in range(60):
        store.replace(f"a/{number:03}", b"")
    faults = [Fault(Action.CUT_RESPONSE, frozenset({Kind.LIST}), skip=skip, count=1) for skip in (0, 1)]
    for fault in faults:
        object_store.order(fault)
    assert [*store.files_below("a")] == [f"a/{number:03}" for number in range(60)]


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


# What takes longer than a request may.


@pytest.mark.parametrize("reading", ["read", "lines", "opened"])
def test_a_large_file_is_read_over_a_slow_link(
    object_store: BreakableStore, store: BucketStore, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    store.replace("large", LARGE)
    be_patient(monkeypatch, request=2, repeated=1)
    object_store.order(Fault(Action.TRICKLE, frozenset({Kind.GET}), rate=2 << 20))
    if reading == "opened":
        with store.opened("large", whole=True) as opened:
            assert opened.read_at(0, opened.size) == LARGE
    else:
        assert (store.read("large") if reading == "read" else b"".join(store.lines("large"))) == LARGE


@pytest.mark.parametrize("contents", [LARGE, LARGE[: 7 << 20]], ids=["in parts", "in one request"])
def test_a_shard_is_uploaded_over_a_slow_link(
    object_store: BreakableStore,
    store: BucketStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contents: bytes,
) -> None:
    """A part of the usual size takes longer than a request may, the smallest one does not."""
    store.check_can_put_if_absent(tmp_path)
    be_patient(monkeypatch, request=3, repeated=1)
    slow = frozenset({Kind.PUT, Kind.UPLOAD_PART})
    object_store.order(Fault(Action.TRICKLE, slow, rate=(5 << 20) * 10 // 23))
    stage = staged(tmp_path)
    store.put_if_absent(TAR, file(stage, contents), stage)
    object_store.forget()
    store.put_if_absent("00004.tar", file(stage, contents), stage)
    assert object_store.traffic(Kind.CREATE_UPLOAD).requests == 1  # at once at the pace that was found
    object_store.withdraw()
    assert store.read(TAR) == store.read("00004.tar") == contents


def test_a_reader_of_lines_may_take_its_time(store: BucketStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"%d" % number + bytes(1 << 20) + b"\n" for number in range(24)]
    store.replace("large", b"".join(lines))
    be_patient(monkeypatch, request=1, repeated=0)
    read = []
    for line in store.lines("large"):
        read.append(line)
        time.sleep(0.1)
    assert read == lines


def test_what_becomes_another_file_while_it_is_read_is_said_to_have_changed(store: BucketStore) -> None:
    for other in (LARGE[::-1], b"short", b""):
        store.replace("large", LARGE)
        lines = store.lines("large")
        next(lines)
        store.replace("large", other)
        with pytest.raises(Unreachable, match="changed while it was read"):
            list(lines)


# Stores that cannot be written to exactly, or at all.


def test_a_store_that_copies_over_what_is_there_is_refused(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    object_store.check("nothing")
    with pytest.raises(OutputError, match="does not copy on the condition that the name is free"):
        store.check_can_put_if_absent(tmp_path)
    assert [*store.files_below("")] == []


def test_of_a_store_that_takes_no_file_no_way_to_copy_is_said_to_be_missing(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        BucketStore(BucketPlace("s3", "bucket-that-is-missing", "out")).check_can_put_if_absent(tmp_path)
    object_store.order(Fault(Action.ANSWER, status=403))
    with pytest.raises(PermissionError, match="the store refuses it"):
        store.check_can_put_if_absent(tmp_path)


@pytest.mark.parametrize(("checks", "kind"), [("copies", Kind.COPY), ("parts", Kind.COMPLETE_UPLOAD)])
def test_a_shard_is_copied_in_one_request_where_the_store_can_and_in_parts_where_not(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, checks: str, kind: Kind
) -> None:
    object_store.check(checks)
    store.check_can_put_if_absent(tmp_path)
    object_store.forget()
    assert committed(store, staged(tmp_path), SMALL) == "put"
    assert object_store.traffic(Kind.COPY, Kind.COMPLETE_UPLOAD).requests == 1
    assert object_store.traffic(kind).requests == 1


def test_the_way_to_copy_is_tried_once_in_a_process(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    store.check_can_put_if_absent(tmp_path)
    object_store.forget()
    BucketStore(store.place).check_can_put_if_absent(tmp_path)
    assert object_store.traffic().requests == 0


@pytest.mark.usefixtures("object_store")
def test_a_bucket_that_is_not_there_is_said_before_anything_is_rendered() -> None:
    output = Output.at("s3://bucket-that-is-missing/out")
    with pytest.raises(OutputError, match=r"NoSuchBucket.*check the bucket's name"):
        output.prepare()
    with pytest.raises(OutputError, match="cannot be read"):
        output.shards()


def test_missing_and_wrong_credentials_are_said_with_their_variables(
    bucket: str, monkeypatch: pytest.MonkeyPatch, object_store: BreakableStore
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "STRANGER")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another process's")
    stranger = Output.at(f"s3://{bucket}/out-1")
    with pytest.raises(OutputError, match=r"the store refuses it.*AWS_SECRET_ACCESS_KEY"):
        stranger.prepare()


def test_of_missing_credentials_no_file_is_said_to_be_missing(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="no credentials are set"):
        BucketStore(BucketPlace("s3", bucket, "out")).exists(TAR)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"])
def test_plain_http_needs_no_other_variable_where_the_endpoint_says_it(
    bucket: str, monkeypatch: pytest.MonkeyPatch, object_store: BreakableStore, name: str
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, object_store.endpoint)
    assert not BucketStore(BucketPlace("s3", bucket, "out")).exists(TAR)


def test_without_obstore_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(OutputError, match=r"pip install 'imagemill\[cloud\]'"):
        Output.at("s3://bucket/out")


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


def test_closing_the_stages_lasts_as_long_as_a_copy_of_what_lay_there_may(store: BucketStore) -> None:
    store.replace(".imagemill/uploads/00001/000001-a/1234/00001.tar", LARGE)
    began = time.monotonic()
    store.close_stages()
    assert time.monotonic() - began > len(LARGE) / (10 << 20)


def test_a_message_and_a_description_name_no_credentials(
    object_store: BreakableStore, store: BucketStore
) -> None:
    object_store.order(Fault(Action.ANSWER, status=403))
    with suppress(PermissionError):
        store.read(TAR)
    with pytest.raises(PermissionError) as raised:
        store.read(TAR)
    for text in (str(raised.value), repr(raised.value), repr(store)):
        assert object_store.secret not in text
        assert object_store.key_id not in text
