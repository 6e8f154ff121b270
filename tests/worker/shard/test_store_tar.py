"""A shard of `layout: webdataset`: the tar commits it, the parquet follows."""

import errno
import os
import shutil
import tarfile

import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from tests.worker.shard.stores import (
    WEBDATASET,
    Crash,
    CrashingSystem,
    a_failure,
    a_store,
    check_whole,
    entries,
    files_of,
    save,
)

pytestmark = pytest.mark.usefixtures("layout")


@WEBDATASET
@pytest.mark.parametrize("winners_links", [1, 2], ids=["before its parquet", "whole"])
def test_a_late_tar_that_slipped_past_the_check_touches_neither_tar_nor_parquet(
    output, monkeypatch, winners_links
):
    lines = entries(2)
    late, winner = a_store(output, lines), a_store(output, lines, attempt="2")
    save(late, 0)
    save(winner, 0, 1)
    link = os.link

    def link_when_the_other_has(source, target):
        monkeypatch.setattr(os, "link", link)
        with monkeypatch.context() as patch:
            CrashingSystem(patch, 2 + winners_links, after=False)
            patch.setattr(shutil, "rmtree", lambda *_folder, **_options: None)
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
        found = {(m.type, m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar}
    assert found == {(tarfile.REGTYPE, 0o644, 0, 0, "", "", 0)}


@WEBDATASET
def test_a_tar_of_failures_alone_has_no_sample_and_ends_as_tars_do(output):
    lines = entries(2)
    a_store(output, lines).commit([a_failure(lines, 0), a_failure(lines, 1)])
    file = output.path / "00003.tar"
    with tarfile.open(file) as tar:
        assert tar.getnames() == [".failures.jsonl"]
    assert file.read_bytes()[-1024:] == bytes(1024)
    check_whole(output, lines, 3, failed=[0, 1])
