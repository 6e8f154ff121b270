"""A shard is committed whole, once, however many are at it."""

import errno
import os
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from jobs.errors import LeaseLost, OutputError
from tests.worker.shard.stores import (
    FILES,
    RENDERED_BY,
    Crash,
    CrashingSystem,
    a_failure,
    a_store,
    check_whole,
    entries,
    files_of,
    pixels,
    save,
)
from worker.encode import read_request
from worker.lease.disk_space import free_bytes
from worker.shard.store import committed_shard

pytestmark = pytest.mark.usefixtures("layout")


def test_a_shard_appears_whole_with_pictures_metadata_and_failures(output):
    lines = entries(4, split="test")
    store = a_store(output, lines, column_names=["split", "other"])
    assert store.adopt() == []
    save(store, 3, 0, 1)
    assert files_of(output.path) == [".imagemill"]
    assert store.commit([a_failure(lines, 2)])
    check_whole(output, lines, 3, failed=[2])
    record = next(output.records(3))
    assert (record["text"], record["id"], record["split"], record["other"]) == (
        "scene 0",
        "line 0",
        "test",
        None,
    )
    assert (record["rendered_rows"], record["rendered_device"], record["flagged"]) == (16, "cpu", None)
    ((_, picture),) = output.pictures(3, [record["file_name"]])
    (output.path / "taken.png").write_bytes(picture)
    assert read_request(output.path / "taken.png") == lines[0].request
    committed = committed_shard(output, 3)
    assert committed.image_ids == [lines[position].request.image_id for position in (0, 1, 3)]
    assert committed.failures == [replace(a_failure(lines, 2))]
    assert committed.flagged == []


def test_what_is_odd_about_a_picture_stands_in_its_record(output):
    store = a_store(output, entries(1))
    store.save(0, pixels(0), RENDERED_BY, "one flat colour")
    store.commit([])
    assert next(output.records(3))["flagged"] == "one flat colour"


def test_what_was_cut_of_a_prompt_is_a_column_only_where_something_was(output):
    lines = entries(2)
    store = a_store(output, lines)
    store.save(0, pixels(0), RENDERED_BY)
    store.save(1, pixels(1), RENDERED_BY, prompt_cut="and a blue square")
    later = a_store(output, lines, attempt="2")
    assert later.adopt() == [0, 1]
    later.commit([])
    whole, cut = output.records(3)
    assert "prompt_cut" not in whole
    assert cut["prompt_cut"] == "and a blue square"


def test_a_shard_in_which_all_failed_is_committed_without_pictures(output):
    lines = entries(2)
    assert a_store(output, lines).commit([a_failure(lines, 1), a_failure(lines, 0)])
    assert output.committed(3)
    assert output.next_shard() == 4
    check_whole(output, lines, 3, failed=[0, 1])


def test_many_threads_save_at_once(output):
    lines = entries(48)
    store = a_store(output, lines)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda position: save(store, position), range(48)))
    assert store.commit([])
    check_whole(output, lines, 3)


def test_a_shard_with_open_positions_is_not_committed(output):
    store = a_store(output, entries(3))
    save(store, 1)
    with pytest.raises(ValueError, match=r"\[0, 2\] are neither done nor failed"):
        store.commit([])
    assert not output.committed(3)


def test_an_image_that_is_done_is_no_failure(output):
    lines = entries(2)
    store = a_store(output, lines)
    save(store, 0, 1)
    assert store.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3)


def test_an_attempt_named_twice_gives_two_folders(output):
    lines = entries(2)
    one, other = a_store(output, lines), a_store(output, lines)
    assert one.folder != other.folder
    save(one, 0)
    assert other.adopt() == [0]
    save(one, 1)
    save(other, 1)
    assert other.commit([])
    assert not one.commit([])
    check_whole(output, lines, 3)


def test_a_late_attempt_learns_that_it_lost(output):
    lines = entries(2)
    late, winner = a_store(output, lines), a_store(output, lines, attempt="2")
    save(late, 0)
    assert winner.adopt() == [0]
    save(winner, 1)
    assert winner.commit([])
    with pytest.raises(LeaseLost, match="another attempt committed it"):
        save(late, 1)
    assert not late.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3)


@FILES
def test_a_late_commit_that_slipped_past_the_check_still_overwrites_nothing(output, monkeypatch):
    lines = entries(2)
    late, winner = a_store(output, lines), a_store(output, lines, attempt="2")
    save(late, 0)
    save(winner, 0, 1)
    rename = os.rename

    def rename_when_the_other_has(source, target):
        monkeypatch.setattr(os, "rename", rename)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", lambda *_folder, **_options: None)
            assert winner.commit([])
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_when_the_other_has)
    assert not late.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3)


def test_of_attempts_that_commit_at_once_exactly_one_wins(output):
    for shard in range(6):
        lines = entries(3, first_seed=10 * shard)
        stores = [a_store(output, lines, shard=shard, attempt=str(number)) for number in range(4)]
        for store in stores:
            save(store, 0, 1, 2)
        together = threading.Barrier(len(stores))
        ended = Counter()

        def commit(store, together=together, ended=ended):
            together.wait()
            try:
                ended[store.commit([])] += 1
            except LeaseLost:
                ended["lost"] += 1

        threads = [threading.Thread(target=commit, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ended[True] == 1
        assert sum(ended.values()) == len(stores)
        records = list(output.records(shard))
        assert [record["image_id"] for record in records] == [line.request.image_id for line in lines]
        assert len(dict(output.pictures(shard, {record["file_name"] for record in records}))) == 3


def test_a_full_disk_is_passed_on_and_the_same_call_works_once_there_is_space(output, monkeypatch):
    lines = entries(2)
    store = a_store(output, lines)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in (lambda: save(store, 0), lambda: save(store, 1), lambda: store.commit([])):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left") as caught:
                step()
            assert caught.value.errno == errno.ENOSPC
        assert not list(store.folder.rglob("*.tmp"))
        step()
    check_whole(output, lines, 3)


def test_an_image_whose_metadata_was_never_written_is_not_committed_unseen(output, monkeypatch):
    lines = entries(2)
    store = a_store(output, lines)
    save(store, 0)
    with monkeypatch.context() as patch:
        CrashingSystem(patch, 1, after=False)
        with pytest.raises(Crash):
            save(store, 1)
    assert store.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3, failed=[1])


@FILES
def test_a_strangers_folder_in_a_shards_place_is_named_and_kept(output):
    lines = entries(1)
    store = a_store(output, lines)
    save(store, 0)
    output.shard_folder(3).mkdir()
    (output.shard_folder(3) / "holiday.png").write_text("mine")
    with pytest.raises(OutputError, match=r"00003 is in the way.*move it elsewhere"):
        store.commit([])
    assert (output.shard_folder(3) / "holiday.png").read_text() == "mine"
    (output.shard_folder(3) / "holiday.png").unlink()
    assert store.commit([])
    check_whole(output, lines, 3)


def test_equal_requests_give_equal_files_in_every_store(output):
    lines = entries(1)
    for shard, job_id in ((3, "scenes-1"), (4, "scenes-2")):
        store = a_store(output, lines, shard=shard, job_id=job_id)
        save(store, 0)
        store.commit([])
    one, other = (next(output.records(shard)) for shard in (3, 4))
    assert one["sha256"] == other["sha256"]


def test_free_space_is_what_the_system_says(output):
    stat = os.statvfs(output.path)
    assert abs(free_bytes(output) - stat.f_bavail * stat.f_frsize) < 1 << 30
