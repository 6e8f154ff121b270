import errno
import hashlib
import json
import os
import shutil
import sys
import tarfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.errors import LeaseLost, OutputError
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.request import Entry, ImageRequest
from worker.encode import read_request
from worker.engine.renderer import RenderedBy
from worker.lease.disk_space import free_bytes
from worker.shard.store import ShardStore, committed_shard

RENDERED_BY = RenderedBy(precision="fp32", rows=16, device="cpu", versions={"torch": "2.13.0"})

LAYOUT = "files"
FILES = pytest.mark.parametrize("layout", ["files"], indirect=True)
WEBDATASET = pytest.mark.parametrize("layout", ["webdataset"], indirect=True)


@pytest.fixture(autouse=True, params=["files", "webdataset"])
def layout(request, monkeypatch):
    """Every test holds in both layouts, where it does not name one."""
    monkeypatch.setattr(sys.modules[__name__], "LAYOUT", request.param)


@pytest.fixture
def output(tmp_path):
    output = Output(tmp_path / "out")
    output.prepare()
    return output


def entries(count, first_seed=0, **columns):
    requests = [
        ImageRequest(prompt=f"scene {i}", seed=first_seed + i, model="m", revision="r", height=8, width=8)
        for i in range(count)
    ]
    return [Entry(request=request, id=f"line {i}", columns=columns) for i, request in enumerate(requests)]


def pixels(position):
    return np.random.default_rng(position).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def a_store(output, lines, *, shard=3, attempt="1", job_id="scenes-1", adopt_below=0, column_names=()):
    return ShardStore(
        output,
        shard,
        attempt,
        lines,
        job_id=job_id,
        column_names=column_names,
        adopt_below=adopt_below,
        layout=LAYOUT,
    )


def save(store, *positions):
    for position in positions:
        store.save(position, pixels(position), RENDERED_BY)


def a_failure(lines, position, shard=3):
    return Failure(
        shard=shard,
        position=position,
        entry=lines[position],
        reason="black",
        job_id="scenes-1",
        command="render it",
    )


def files_of(folder):
    return sorted(file.name for file in folder.iterdir())


def check_whole(output, lines, shard, failed=()):
    """The shard is there once, every line of it is in it or among its failures, and every file is sound."""
    records = list(output.records(shard))
    done = [position for position in range(len(lines)) if position not in failed]
    assert [record["image_id"] for record in records] == [
        lines[position].request.image_id for position in done
    ]
    assert [record["file_name"] for record in records] == [
        f"{shard:05d}{position:04d}.png" for position in done
    ]
    pictures = dict(output.pictures(shard, {record["file_name"] for record in records}))
    assert [hashlib.sha256(data).hexdigest() for data in pictures.values()] == [r["sha256"] for r in records]
    assert list(pictures) == [record["file_name"] for record in records]
    assert [failure.position for failure in output.shard_failures(shard)] == sorted(failed)
    names = sorted(file.name for file in output.path.iterdir() if file.name[0] != ".")
    if LAYOUT == "files":
        own = (["metadata.jsonl"] if records else []) + ([".failures.jsonl"] if failed else [])
        assert files_of(output.shard_folder(shard)) == sorted([*pictures, *own])
        assert names == [f"{shard:05d}"]
    else:
        check_tar_and_parquet(output.path / f"{shard:05d}.tar", records, lines, failed)
        assert names == [f"{shard:05d}.parquet", f"{shard:05d}.tar"]
    assert not output.spool_folder(shard, "1").parent.exists()


def check_tar_and_parquet(tar, records, lines, failed):
    with tarfile.open(tar) as opened:
        members = {member.name: opened.extractfile(member).read() for member in opened}
    keys = [record["file_name"].removesuffix(".png") for record in records]
    failures = members.pop(".failures.jsonl", b"").splitlines()
    assert [json.loads(line)["position"] for line in failures] == sorted(failed)
    assert list(members) == [f"{key}.{ending}" for key in keys for ending in ("png", "txt", "json")]
    for key, record in zip(keys, records, strict=True):
        assert members[f"{key}.txt"].decode() == record["text"]
        assert json.loads(members[f"{key}.json"]) == record
    table = pq.read_table(tar.with_suffix(".parquet")).to_pylist()
    statuses = ["failed_to_render" if position in failed else "success" for position in range(len(lines))]
    assert [line["status"] for line in table] == statuses
    assert [line["image_id"] for line in table] == [line.request.image_id for line in lines]
    assert [line["sha256"] for line in table if line["status"] == "success"] == [r["sha256"] for r in records]


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


class Crash(BaseException):
    """The process is gone: nothing after it runs."""


class CrashingSystem:
    """Lets `calls` renames and links through and dies before or after the next; then nothing works."""

    def __init__(self, monkeypatch, calls, after):
        self.left, self.after, self.dead = calls, after, False
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(os, "unlink", self.dead_or(os.unlink))
        monkeypatch.setattr(os, "rmdir", self.dead_or(os.rmdir))

    def counted(self, call):
        def wrapped(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if self.after and self.left == -1:
                    call(*args, **kwargs)
                raise Crash
            return call(*args, **kwargs)

        return wrapped

    def dead_or(self, call):
        def wrapped(*args, **kwargs):
            if self.dead:
                raise Crash
            return call(*args, **kwargs)

        return wrapped


def attempt(output, lines, number):
    """One worker's try at a shard whose third image fails."""
    if output.committed(3):
        return
    store = a_store(output, lines, attempt=str(number))
    adopted = store.adopt()
    save(store, *(position for position in (0, 1, 3) if position not in adopted))
    store.commit([a_failure(lines, 2)])


STEPS = 3 * 2 + 3
"""Renames of an undisturbed attempt: 3 images and their metadata, the two lists, the shard."""


@FILES
def test_an_attempt_takes_as_many_steps_as_the_crashes_below_try(output, monkeypatch):
    CrashingSystem(monkeypatch, STEPS, after=False)
    attempt(output, entries(4), 1)
    assert output.committed(3)


@FILES
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_crash_at_any_rename_leaves_nothing_half_and_the_next_attempt_completes(
    output, monkeypatch, step, after
):
    lines = entries(4)
    with monkeypatch.context() as patch:
        CrashingSystem(patch, step, after)
        with pytest.raises(Crash):
            attempt(output, lines, 1)
    last = step == STEPS - 1 and after
    assert output.committed(3) == last
    # The second attempt dies in the middle of adopting or a little later, the third lives.
    with monkeypatch.context() as patch:
        CrashingSystem(patch, 3, after)
        if not last:
            with pytest.raises(Crash):
                attempt(output, lines, 2)
    attempt(output, lines, 3)
    if last:
        assert (output.spool / "00003").exists()
        assert [record["file_name"][-6:] for record in output.records(3)] == ["00.png", "01.png", "03.png"]
    else:
        check_whole(output, lines, 3, failed=[2])


TAR_STEPS = 1 + 3 * 2 + 2 + 2
"""The trial link, 3 images and their metadata, tar and parquet in the spool, the links of both."""


@WEBDATASET
def test_a_tar_takes_as_many_steps_as_the_crashes_below_try(output, monkeypatch):
    CrashingSystem(monkeypatch, TAR_STEPS, after=False)
    attempt(output, entries(4), 1)
    assert files_of(output.path)[1:] == ["00003.parquet", "00003.tar"]


@WEBDATASET
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(TAR_STEPS))
def test_a_crash_at_any_link_leaves_no_parquet_but_the_tars_own(output, monkeypatch, step, after):
    lines = entries(4)
    with monkeypatch.context() as patch:
        CrashingSystem(patch, step, after)
        with pytest.raises(Crash):
            attempt(output, lines, 1)
    committed = step > TAR_STEPS - 2 or (step == TAR_STEPS - 2 and after)
    assert output.committed(3) == committed
    assert (output.path / "00003.parquet").exists() == (step == TAR_STEPS - 1 and after)
    attempt(output, lines, 2)
    output.stored(3).complete()
    if committed:
        shutil.rmtree(output.spool / "00003")
    check_whole(output, lines, 3, failed=[2])


def test_finished_images_are_adopted_not_rendered_again(output):
    lines = entries(5)
    first = a_store(output, lines)
    save(first, 1, 4)
    original = first.folder / "images/000030001.png"
    second = a_store(output, lines, attempt="2")
    assert second.adopt() == [1, 4]
    assert original.samefile(second.folder / "images/000030001.png")
    third = a_store(output, lines, attempt="3")
    save(third, 0)
    assert third.adopt() == [0, 1, 4]
    save(third, 2, 3)
    assert third.commit([])
    check_whole(output, lines, 3)


@FILES
def test_where_there_are_no_hard_links_images_are_copied(output, monkeypatch):
    lines = entries(1)
    save(a_store(output, lines), 0)

    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    store = a_store(output, lines, attempt="2")
    assert store.adopt() == [0]
    assert store.commit([])
    check_whole(output, lines, 3)


def test_leftovers_of_an_ended_job_are_adopted_under_new_keys_and_columns(output):
    old = entries(4, colour="old")
    leftover = a_store(output, old, shard=1, job_id="scenes-1", column_names=["colour"])
    save(leftover, 1, 3)
    new = [replace(old[position], columns={"colour": "new"}) for position in (3, 2, 1)]
    store = a_store(output, new, shard=5, job_id="scenes-2", adopt_below=5, column_names=["colour"])
    assert store.adopt() == [0, 2]
    save(store, 1)
    assert store.commit([])
    check_whole(output, new, 5)
    assert {(record["job_id"], record["colour"]) for record in output.records(5)} == {("scenes-2", "new")}


def test_other_shards_of_the_same_job_are_left_alone(output):
    lines = entries(2)
    save(a_store(output, lines, shard=4), 0)
    assert a_store(output, lines, shard=5, adopt_below=4).adopt() == []


def truncate_image(image, metadata):
    image.write_bytes(image.read_bytes()[:-1])


def corrupt_image(image, metadata):
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)


def remove_image(image, metadata):
    image.unlink()


def make_image_a_pipe(image, metadata):
    image.unlink()
    os.mkfifo(image)


def make_image_a_link(image, metadata):
    moved = image.rename(image.with_suffix(".moved"))
    image.symlink_to(moved)


def truncate_metadata(image, metadata):
    metadata.write_bytes(metadata.read_bytes()[:-1])


def make_metadata_a_list(image, metadata):
    metadata.write_text("[1]")


def make_metadata_a_folder(image, metadata):
    metadata.unlink()
    metadata.mkdir()


def change(**fields):
    def spoil(image, metadata):
        metadata.write_text(json.dumps(json.loads(metadata.read_bytes()) | fields))

    spoil.__name__ = f"change_{'_'.join(fields)}"
    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        truncate_image,
        corrupt_image,
        remove_image,
        make_image_a_pipe,
        make_image_a_link,
        truncate_metadata,
        make_metadata_a_list,
        make_metadata_a_folder,
        change(image_id="0" * 16),
        change(sha256="0" * 64),
        change(sha256=None),
        change(file_name="../../../../../etc/passwd"),
        change(file_name=7),
        change(rendered="fp32"),
        change(more=1),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_not_sound_is_left_aside_and_rendered_again(output, spoil):
    lines = entries(2)
    first = a_store(output, lines)
    save(first, 0, 1)
    spoil(first.folder / "images/000030000.png", first.folder / f"metadata/{lines[0].request.image_id}.json")
    store = a_store(output, lines, attempt="2")
    assert store.adopt() == [1]
    save(store, 0)
    assert store.commit([])
    check_whole(output, lines, 3)


@pytest.mark.parametrize("place", ["..", ".", "images", "metadata"])
def test_what_a_link_leads_to_is_not_adopted(output, tmp_path, place):
    lines = entries(1)
    first = a_store(output, lines, shard=2)
    save(first, 0)
    folder = (first.folder / place).resolve()
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert a_store(output, lines, adopt_below=3).adopt() == []
    folder.unlink()
    elsewhere.rename(folder)
    assert a_store(output, lines, adopt_below=3).adopt() == [0]


def test_strange_files_in_the_spool_harm_nothing(output):
    lines = entries(1)
    (output.spool / "notes.txt").write_text("")
    (output.spool / "00001").write_text("a file")
    (output.spool / "00003").mkdir()
    (output.spool / "00003/7").write_text("a file")
    store = a_store(output, lines, adopt_below=3)
    assert store.adopt() == []
    save(store, 0)
    assert store.commit([])
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


def test_a_late_attempt_is_told_that_it_lost(output):
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
        monkeypatch.setattr(winner, "_remove_spool", lambda: None)
        assert winner.commit([])
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_when_the_other_has)
    assert not late.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3)


@WEBDATASET
@pytest.mark.parametrize("winners_links", [1, 2], ids=["before its parquet", "whole"])
def test_a_late_tar_that_slipped_past_the_check_touches_neither_tar_nor_parquet(
    output, monkeypatch, winners_links
):
    lines = entries(2)
    late, winner = a_store(output, lines), a_store(output, lines, attempt="2")
    save(late, 0)
    save(winner, 0, 1)
    monkeypatch.setattr(winner, "_remove_spool", lambda: None)
    link = os.link

    def link_when_the_other_has(source, target):
        monkeypatch.setattr(os, "link", link)
        with monkeypatch.context() as patch:
            CrashingSystem(patch, 2 + winners_links, after=False)
            if winners_links == 2:
                assert winner.commit([])
            else:
                with pytest.raises(Crash):
                    winner.commit([])
        link(source, target)

    monkeypatch.setattr(os, "link", link_when_the_other_has)
    assert not late.commit([a_failure(lines, 1)])
    assert (output.path / "00003.parquet").exists() == (winners_links == 2)
    output.stored(3).complete()
    check_whole(output, lines, 3)


@WEBDATASET
def test_a_winner_that_was_frozen_between_tar_and_parquet_changes_nothing_when_it_wakes(output, monkeypatch):
    lines = entries(2)
    store = a_store(output, lines)
    save(store, 0, 1)
    link = os.link

    def link_after_somebody_completed(source, target):
        if str(target).endswith(".parquet"):
            output.stored(3).complete()
            completed.append((output.path / "00003.parquet").stat().st_ino)
        link(source, target)

    completed = []
    monkeypatch.setattr(os, "link", link_after_somebody_completed)
    assert store.commit([])
    assert [(output.path / "00003.parquet").stat().st_ino] == completed
    check_whole(output, lines, 3)


@WEBDATASET
def test_a_winner_whose_spool_was_taken_away_between_tar_and_parquet_makes_it_from_the_tar(
    output, monkeypatch
):
    lines = entries(2)
    winner, late = a_store(output, lines), a_store(output, lines, attempt="2")
    save(winner, 0)
    link = os.link

    def link_after_the_late_one(source, target):
        if str(target).endswith(".parquet"):
            assert not late.commit([])
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_the_late_one)
    assert winner.commit([a_failure(lines, 1)])
    check_whole(output, lines, 3, failed=[1])


@WEBDATASET
def test_without_hard_links_a_tar_is_refused_before_anything_is_rendered(output, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OutputError, match=r"no hard links.*use layout: files"):
        a_store(output, entries(1))


@WEBDATASET
def test_without_pyarrow_a_tar_is_refused_before_anything_is_rendered(output, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputError, match=r"pip install 'imagemill\[parquet\]'"):
        a_store(output, entries(1))
    assert files_of(output.spool) == []


@WEBDATASET
@pytest.mark.parametrize("name", ["00003.tar", "00003.parquet"])
def test_what_stands_in_a_tars_place_is_named_and_kept(output, name):
    store = a_store(output, entries(1))
    save(store, 0)
    (output.path / name).mkdir()
    with pytest.raises(OutputError, match=f"{name} is in the way"):
        store.commit([])
    (output.path / name).rmdir()
    assert store.commit([])


@WEBDATASET
def test_equal_shards_give_equal_tars_and_parquets(output, tmp_path):
    other = Output(tmp_path / "other")
    other.prepare()
    for one, positions in ((output, (0, 1)), (other, (1, 0))):
        store = a_store(one, entries(3))
        save(store, *positions)
        assert store.commit([a_failure(entries(3), 2)])
    for name in ("00003.tar", "00003.parquet"):
        assert (output.path / name).read_bytes() == (other.path / name).read_bytes()


@WEBDATASET
def test_members_belong_to_nobody_and_have_no_date(output):
    store = a_store(output, entries(2))
    save(store, 0)
    store.commit([a_failure(entries(2), 1)])
    with tarfile.open(output.path / "00003.tar") as tar:
        told = {(m.type, m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar}
    assert told == {(tarfile.REGTYPE, 0o644, 0, 0, "", "", 0)}


@WEBDATASET
def test_a_tar_of_failures_alone_has_no_sample_and_ends_as_tars_do(output):
    lines = entries(2)
    a_store(output, lines).commit([a_failure(lines, 0), a_failure(lines, 1)])
    file = output.path / "00003.tar"
    with tarfile.open(file) as tar:
        assert tar.getnames() == [".failures.jsonl"]
    assert file.read_bytes()[-1024:] == bytes(1024)
    check_whole(output, lines, 3, failed=[0, 1])


def test_of_attempts_that_commit_at_once_exactly_one_wins(output):
    for shard in range(12):
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


def test_equal_requests_give_equal_files_whoever_stores_them(output):
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
