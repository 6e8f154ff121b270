import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.entry import Entry
from jobs.errors import OutputError
from jobs.output.durable import write_atomically
from jobs.output.job_files import next_job_number
from jobs.output.metadata import Failure
from jobs.output.output import Output
from jobs.output.output_root import check_output_within
from jobs.output.shard_names import FLAT, ShardNames
from jobs.request import ImageRequest


def a_request(seed=0):
    return ImageRequest(prompt="a fox", seed=seed, model="m", revision="r")


def put_shard(output, shard, seeds=(), failed_seeds=()):
    folder = output.shard_folder(shard)
    folder.mkdir(parents=True)
    records = []
    for position, seed in enumerate(seeds):
        name = f"{FLAT.key(shard, position)}.png"
        (folder / name).write_bytes(b"a picture")
        records.append({"file_name": name, "image_id": a_request(seed).image_id})
    if records:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    failures = [
        Failure(
            shard=shard,
            position=len(records) + i,
            entry=Entry.of(request=a_request(seed)),
            reason="?",
            job_id="j-1",
            command="render it",
        )
        for i, seed in enumerate(failed_seeds)
    ]
    if failures:
        output.failures_file(shard).write_text("".join(f.to_json() + "\n" for f in failures))


def test_names_have_five_digits_for_the_shard_and_four_for_the_place():
    output = Output(Path("/out"))
    assert output.shard_folder(3) == Path("/out/00003")
    assert output.shard_folder(123456) == Path("/out/123456")
    assert output.spool_folder(3, "2") == Path("/out/.imagemill/spool/00003/2")
    assert FLAT.key(3, 12) == "000030012"
    with pytest.raises(ValueError, match="10000"):
        FLAT.key(3, 10_000)


def test_a_relative_output_is_refused():
    with pytest.raises(ValueError, match="absolute"):
        Output(Path("out"))


def test_outputs_of_the_same_files_are_equal_and_stay_so_on_their_way_to_another_process():
    for location in ("/out", "s3://pictures/out"):
        output = Output.at(location)
        named = output.with_names(ShardNames(6))
        for other in (Output.at(location), named, pickle.loads(pickle.dumps(named))):
            assert (other, hash(other), other.label) == (output, hash(output), location)
        assert pickle.loads(pickle.dumps(named)).names == ShardNames(6)
        assert output != Output.at(f"{location}-2")


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def seen_replace(source, target):
        steps.append("rename")
        replace(source, target)

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_atomically(folder / "a.png", b"data")
    assert steps == ["file", "rename", "folder"]
    assert [file.name for file in folder.iterdir()] == ["a.png"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    write_atomically(folder / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(folder / "a", b"new")
    assert [file.name for file in folder.iterdir()] == ["a"]
    assert (folder / "a").read_bytes() == b"old"


def test_a_written_file_has_the_mode_that_the_umask_gives(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_an_empty_output_begins_with_shard_0_and_job_1(tmp_path):
    output = Output(tmp_path / "new")
    assert output.next_shard() == 0
    assert next_job_number(output, "sunsets") == 1
    assert output.shards() == []
    assert output.held_image_ids() == set()


def test_the_next_shard_is_beyond_committed_failed_and_spooled_ones(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 2, seeds=[1])
    assert output.next_shard() == 3
    put_shard(output, 5, failed_seeds=[2])
    assert output.next_shard() == 6
    output.spool_folder(9, "1").mkdir(parents=True)
    assert output.next_shard() == 10
    put_shard(output, 123456, seeds=[3])
    assert output.next_shard() == 123457


def test_a_shard_in_which_all_failed_is_committed_and_holds_nothing(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 0, failed_seeds=[1, 2])
    assert output.committed(0)
    assert output.shards() == [0]
    assert list(output.records(0)) == []
    assert [failure.entry.request.seed for failure in output.shard_failures(0)] == [1, 2]


def test_folders_that_are_no_shards_are_not_taken_for_shards(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 1, seeds=[1])
    for name in ("00007", "000008", "123", "notes", "00009 copy"):
        (tmp_path / name).mkdir()
    (tmp_path / "00011").write_text("a file")
    assert output.shards() == [1]
    assert not output.committed(7)


def test_held_images_are_those_named_in_metadata_and_there(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 0, seeds=[1, 2])
    put_shard(output, 1, seeds=[3])
    (output.shard_folder(0) / f"{FLAT.key(0, 1)}.png").unlink()
    assert output.held_image_ids() == {a_request(1).image_id, a_request(3).image_id}


def test_failures_are_merged_once_each_as_they_failed_last_without_what_is_held(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 0, seeds=[1], failed_seeds=[2, 3, 4])
    put_shard(output, 1, seeds=[3], failed_seeds=[2])
    assert [(f.shard, f.entry.request.seed) for f in output.failures()] == [(0, 4), (1, 2)]


@pytest.mark.parametrize("text", ['{"image_id": "a', "[1]\n", '{"file_name": "a.png"}\n', "\xff\xfe\n", "\n"])
def test_damaged_metadata_is_named_by_file_and_line(tmp_path, text):
    output = Output(tmp_path)
    put_shard(output, 0, seeds=[1])
    with output.metadata_file(0).open("ab") as file:
        file.write(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"00000/metadata\.jsonl:2: .*restore the file"):
        output.held_image_ids()


def test_folders_and_tars_stand_in_one_output(rendered):
    output = rendered(8, failed=(1,), layout="webdataset")
    held = output.held_image_ids()
    put_shard(output, 3, seeds=[7, 8], failed_seeds=[9])
    (output.path / "00005.parquet").touch()
    assert output.shards() == [0, 1, 3]
    assert output.next_shard() == 6
    assert [output.committed(shard) for shard in range(6)] == [True, True, False, True, False, False]
    assert output.held_lines(below=3).pictures == len(held)
    assert output.held_image_ids() == held | {a_request(7).image_id, a_request(8).image_id}
    assert len(held) == 7
    assert [(failure.shard, failure.position) for failure in output.failures()] == [(0, 1), (3, 2)]
    for shard in output.shards():
        names = [record["file_name"] for record in output.records(shard)]
        assert [name for name, _ in output.pictures(shard, names)] == names
    assert list(output.pictures(0, ["000000001.png"])) == []


def test_a_damaged_tar_is_named_with_its_member(rendered):
    output = rendered(4, layout="webdataset")
    file = output.path / "00000.tar"
    data = file.read_bytes()
    file.write_bytes(data.replace(b'{"file_name": "000000002', b'["file_name": "000000002'))
    with pytest.raises(OutputError, match=r"00000\.tar: 000000002\.json: not JSON .*restore the file"):
        output.held_image_ids()
    file.write_bytes(data[:600])
    with pytest.raises(OutputError, match=r"00000\.tar: is cut off"):
        list(output.records(0))


def test_reading_an_output_of_tars_needs_no_pyarrow(rendered):
    output = rendered(4, failed=(1,), layout="webdataset")
    code = (
        "import sys; from pathlib import Path; from jobs.output.output import Output\n"
        f"output = Output(Path({str(output.path)!r}))\n"
        "assert len(output.held_image_ids()) == 3 and len(output.failures()) == 1\n"
        "sys.exit('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_damaged_failures_are_named_by_file_and_line(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 0, failed_seeds=[1])
    with output.failures_file(0).open("a") as file:
        file.write('{"shard": 0}\n')
    with pytest.raises(OutputError, match=r"00000/\.failures\.jsonl:2: not a failure"):
        output.failures()


def test_an_output_that_is_a_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written .*name another output"):
        Output(tmp_path / "out").prepare()


def test_an_output_that_the_system_refuses_is_refused_with_the_reason(tmp_path, monkeypatch):
    def read_only(*_args, **_kwargs):
        raise OSError(30, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(OutputError, match="Read-only file system"):
        Output(tmp_path / "out").prepare()


def test_a_folder_of_this_machine_that_a_bucket_cannot_have_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").write_text("")
    with pytest.raises(
        OutputError, match=r"output s3://pictures/foxes: \S+/cache/\S+ on this .* XDG_CACHE_HOME"
    ):
        Output.at("s3://pictures/foxes").prepare()


def test_preparing_leaves_nothing_visible_in_the_output(tmp_path):
    Output(tmp_path / "a/b").prepare()
    assert [file.name for file in (tmp_path / "a/b").iterdir()] == [".imagemill"]


def test_attempts_are_closed_in_the_output_and_not_where_a_link_leads(tmp_path):
    output = Output(tmp_path / "out")
    ours, theirs = output.spool_folder(0, "1"), tmp_path / "elsewhere" / "1"
    ours.mkdir(parents=True)
    theirs.mkdir(parents=True)
    (output.spool / "00001").symlink_to(theirs.parent)
    output.close_attempts()
    assert [folder.name for folder in ours.parent.iterdir()] == ["1.closed"]
    assert theirs.is_dir()


def test_a_name_that_the_system_does_not_take_is_refused_with_the_remedy(tmp_path):
    output = Output(tmp_path / ("x" * 300))
    for look in (output.prepare, lambda: check_output_within(output, tmp_path)):
        with pytest.raises(OutputError, match=r"File name too long.*name another output"):
            look()


@pytest.mark.parametrize(
    "changed",
    [
        {"file_name": "../outside.png"}, {"file_name": "/dev/zero"}, {"file_name": "0.p\0g"},
        {"file_name": "0\n.png"}, {"height": "64"}, {"text": 7},
        {"seed": True}, {"model": []}, {"init_latents": {}},
    ],
)  # fmt: skip
def test_a_record_that_imagemill_cannot_have_written_is_named(tmp_path, changed):
    output = Output(tmp_path)
    put_shard(output, 0, seeds=[1])
    record = json.loads(output.metadata_file(0).read_text())
    output.metadata_file(0).write_text(json.dumps(record | changed) + "\n")
    with pytest.raises(OutputError, match=r"00000/metadata\.jsonl:1: a record whose "):
        list(output.records(0))


@pytest.mark.parametrize(
    "changed",
    [
        {"position": "1"},
        {"shard": None},
        {"columns": []},
        {"reason": 7},
        {"id": 7},
        {"request": []},
        {"command": True},
    ],
)
def test_a_failure_that_imagemill_cannot_have_written_is_named(tmp_path, changed):
    output = Output(tmp_path)
    put_shard(output, 0, failed_seeds=[1])
    record = json.loads(output.failures_file(0).read_text())
    for line in (record | changed, record | {"request": record["request"] | {"prompt": "\ud800"}}):
        output.failures_file(0).write_text(json.dumps(line) + "\n")
        with pytest.raises(OutputError, match=r"00000/\.failures\.jsonl:1: not a failure "):
            output.failures()


def test_a_line_of_lists_in_lists_is_named(tmp_path):
    output = Output(tmp_path)
    put_shard(output, 0, seeds=[1])
    with output.metadata_file(0).open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(OutputError, match=r"00000/metadata\.jsonl:2: not a line of JSON"):
        output.held_image_ids()
