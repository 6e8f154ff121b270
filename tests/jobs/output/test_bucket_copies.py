"""Stores that can be written to exactly, and others."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.location import BucketPlace
from jobs.output.bucket_store import BucketStore
from jobs.output.output import Output
from tests.jobs.output.buckets import (
    SMALL,
    committed,
    staged,
)
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

pytestmark = pytest.mark.usefixtures("impatient")


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


def test_what_a_store_can_is_tried_once_in_a_process_and_in_each_place_that_it_takes_files(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    store.prepare()
    object_store.forget()
    BucketStore(store.place).check_can_put_if_absent(tmp_path)
    BucketStore(store.place).prepare()
    assert object_store.traffic().requests == 0
    beside = BucketStore(BucketPlace("s3", store.place.bucket, "beside"))
    beside.check_can_put_if_absent(tmp_path)
    beside.prepare()
    assert object_store.traffic(Kind.PUT).requests == object_store.traffic(Kind.DELETE).requests == 1
    assert object_store.traffic().requests == 2


def test_a_place_that_takes_no_file_is_found_though_its_bucket_takes_some_elsewhere(
    object_store: BreakableStore, store: BucketStore
) -> None:
    store.prepare()
    object_store.order(Fault(Action.ANSWER, keys="^theirs/", status=403))
    with pytest.raises(OutputError, match="the store refuses it"):
        BucketStore(BucketPlace("s3", store.place.bucket, "theirs")).prepare()


def test_of_several_threads_one_tries(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path
) -> None:
    object_store.forget()
    threads = [threading.Thread(target=store.check_can_put_if_absent, args=(tmp_path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert object_store.traffic(Kind.COPY).requests == 2, "the second must be refused"


def test_a_trial_that_got_no_answer_is_made_again(object_store: BreakableStore, store: BucketStore) -> None:
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.COPY})))
    with pytest.raises(OutputError, match="503"):
        store.prepare()
    object_store.withdraw()
    store.prepare()


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


def test_without_obstore_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(OutputError, match=r"pip install 'imagemill\[cloud\]'"):
        Output.at("s3://bucket/out")


def test_what_stays_of_a_trial_goes_with_what_is_left_of_uploads(
    object_store: BreakableStore, store: BucketStore
) -> None:
    """As of a process that is killed meanwhile; nobody waits for its copies."""
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.DELETE}), status=403))
    store.prepare()
    object_store.withdraw()
    assert [*store.files_below("")] != []
    waits: list[float] = []
    store.close_stages(waits.append)
    assert ([*store.files_below("")], waits) == ([], [])
