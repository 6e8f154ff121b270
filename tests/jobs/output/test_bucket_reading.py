"""What a bucket gives to a reader, whatever the way to the store does to the requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from jobs.location import BucketPlace
from jobs.output.bucket_store import BucketStore
from jobs.output.store import Unreachable
from tests.jobs.output.buckets import (
    TAR,
    be_patient,
)
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import OBJECTS, Action, Fault, Kind
from tests.ports import free_port

LONG = os.urandom(4 << 20)
"""More than a part that is read in a request."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    be_patient(monkeypatch, request=3, repeated=2)


def test_a_store_that_does_not_answer_is_said_to_be_unreachable_and_asked_again_later(
    object_store: BreakableStore, store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch, request=1, repeated=1)
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


@pytest.mark.parametrize("reading", ["lines", "opened"])
def test_a_large_file_is_read_over_a_slow_link(
    object_store: BreakableStore, store: BucketStore, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    """Each part in a request's time, all of them in no such time."""
    store.replace("large", LONG)
    be_patient(monkeypatch, request=2, repeated=1)
    rate = len(LONG) * 10 // 23
    object_store.order(Fault(Action.TRICKLE, frozenset({Kind.GET}), rate=rate))
    if reading == "opened":
        with store.opened("large", whole=True) as opened:
            assert opened.read_at(0, opened.size) == LONG
    else:
        assert b"".join(store.lines("large")) == LONG


def test_a_reader_of_lines_may_take_its_time(store: BucketStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"%d" % number + bytes(800 << 10) + b"\n" for number in range(6)]
    store.replace("large", b"".join(lines))
    be_patient(monkeypatch, request=1, repeated=0)
    read = []
    for line in store.lines("large"):
        read.append(line)
        time.sleep(0.25)
    assert read == lines


def test_what_becomes_another_file_while_it_is_read_is_said_to_have_changed(store: BucketStore) -> None:
    for other in (LONG[::-1], b"short", b""):
        store.replace("large", LONG)
        lines = store.lines("large")
        next(lines)
        store.replace("large", other)
        with pytest.raises(Unreachable, match="changed while it was read"):
            list(lines)


def test_of_missing_credentials_no_file_is_said_to_be_missing(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch, request=1, repeated=1)
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
