"""Uploads over uplinks of any speed: each that moves a part within a request's time gets through."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.output import upload_pace
from jobs.output.bucket_client import Patience
from jobs.output.bucket_store import BucketStore
from jobs.output.store import Unreachable
from jobs.output.upload_pace import SMALL as SMALL_FILE
from jobs.output.upload_pace import Uplink
from jobs.settings import Settings
from tests.jobs.output.buckets import (
    FIRST,
    FULL,
    LARGE,
    TAR,
    be_patient,
    file,
    staged,
)
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

pytestmark = pytest.mark.usefixtures("impatient")


SENDING = frozenset({Kind.PUT, Kind.UPLOAD_PART})
RATE = FIRST.part * 10 // 8
"""Bytes a second: a part passes in 0.8 s."""


def slow_uplink(object_store: BreakableStore) -> None:
    """From now on all that is sent shares a link, also what was given up."""
    object_store.order(Fault(Action.TRICKLE, SENDING, r"\.tar$", rate=RATE, shared=True))


def test_a_large_shard_gets_through_a_slow_uplink_from_a_new_process(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part passes in a request's time; four at once, or one after what was given up, do not."""
    store.check_can_put_if_absent(tmp_path)
    be_patient(monkeypatch, request=2, repeated=1)
    slow_uplink(object_store)
    contents = os.urandom(4 * FIRST.part)
    stage = staged(tmp_path)
    store.put_if_absent(TAR, file(stage, contents), stage)
    assert object_store.traffic(Kind.CREATE_UPLOAD).requests == 1
    object_store.withdraw()
    assert store.read(TAR) == contents


def test_shards_that_share_a_slow_uplink_go_one_after_the_other(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.check_can_put_if_absent(tmp_path)
    be_patient(monkeypatch, request=2, repeated=1)
    slow_uplink(object_store)
    stages = [staged(tmp_path, name) for name in "abc"]
    tars = [file(stage, LARGE + stage.name.encode()) for stage in stages]

    def put(number: int) -> None:
        store.put_if_absent(f"0000{number}.tar", tars[number], stages[number])

    threads = [threading.Thread(target=put, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    object_store.withdraw()
    assert [store.read(f"0000{number}.tar") for number in range(3)] == [tar.read_bytes() for tar in tars]


def test_an_uplink_that_is_known_to_be_fast_takes_larger_parts(
    object_store: BreakableStore, store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_patient(monkeypatch, request=12, repeated=16)
    contents = os.urandom(12 * FIRST.part)
    for pace in (FIRST, FULL):
        object_store.forget()
        store.replace("large", contents)
        assert object_store.traffic(Kind.UPLOAD_PART).requests == len(contents) // pace.part
    assert store.read("large") == contents


def test_an_uplink_that_became_slow_is_known_to_be_after_one_upload(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = os.urandom(4 * FIRST.part)
    store.replace("large", contents)
    be_patient(monkeypatch, request=2, repeated=1)
    slow_uplink(object_store)
    stage = staged(tmp_path)
    for _ in range(20):
        with suppress(Unreachable):
            store.put_if_absent(TAR, file(stage, contents), stage)
            break
    object_store.withdraw()
    assert store.read(TAR) == contents


def test_an_upload_that_hangs_is_given_up_within_a_lease(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No byte moves: it is begun once more at most."""
    be_patient(monkeypatch, request=1, repeated=1)
    hangs = object_store.order(Fault(Action.HANG, frozenset({Kind.UPLOAD_PART}), seconds=60))
    stage = staged(tmp_path)
    with pytest.raises(Unreachable):
        store.put_if_absent(TAR, file(stage, LARGE), stage)
    assert object_store.taken(hangs) <= 2
    usual = Patience()
    assert usual.request + usual.repeated < Settings().lease


def test_an_upload_that_moved_is_begun_again_after_more_than_the_time_of_repetitions(
    object_store: BreakableStore, store: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.check_can_put_if_absent(tmp_path)
    be_patient(monkeypatch, request=1, repeated=0)
    object_store.order(Fault(Action.HANG, frozenset({Kind.UPLOAD_PART}), skip=2, count=1, seconds=60))
    contents = os.urandom(4 * FIRST.part)
    stage = staged(tmp_path)
    store.put_if_absent(TAR, file(stage, contents), stage)
    assert store.read(TAR) == contents


def test_a_small_file_waits_for_no_large_one() -> None:
    uplink = Uplink()
    with uplink.room_for(1 << 30), uplink.room_for(SMALL_FILE) as pace:
        assert pace == upload_pace.FIRST


def test_files_of_less_than_a_part_tell_that_a_link_is_fast_and_never_that_it_is_slow() -> None:
    """Pictures that a submission keeps are mostly such, and went one or two at a time."""
    uplink = Uplink()
    with uplink.watched(SMALL_FILE):
        pass
    assert uplink.pace == upload_pace.FIRST
    with uplink.watched(3 << 20):
        pass
    assert uplink.pace == upload_pace.FULL
    with uplink.watched(SMALL_FILE + 1):
        time.sleep(0.2)
    assert uplink.pace == upload_pace.FULL


def test_a_new_process_sends_the_smallest_parts_that_s3_takes_one_at_a_time() -> None:
    assert Uplink().pace == (5 << 20, 1)
