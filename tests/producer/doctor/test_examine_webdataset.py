"""Whatever is changed in a tar or its parquet is named, by tar and member; a repair keeps what is sound."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import OutputError
from jobs.output.local_store import LocalStore
from jobs.output.output import Output
from jobs.output.tar_file import DamagedTar, TarReader, TarWriter
from producer.doctor.checkup import check_output
from producer.doctor.examine_webdataset import examine_tar
from producer.doctor.findings import Problem
from producer.doctor.quarantine import Repair, set_aside

Rendered = Callable[..., Output]
Members = list[tuple[str, bytes]]
TAR, PARQUET = "00000.tar", "00000.parquet"


@pytest.fixture
def output(rendered: Rendered) -> Output:
    """Two tars of four; the third image of the first failed."""
    return rendered(8, failed=(2,), layout="webdataset")


def members_of(file: Path) -> Members:
    with tarfile.open(file) as tar:
        return [(member.name, opened.read()) for member in tar if (opened := tar.extractfile(member))]


def write_members(file: Path, members: Members) -> None:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def change_member(output: Output, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Write the first tar with another member of this name, or without it."""
    members = [(n, change(data) if n == name else data) for n, data in members_of(output.path / TAR)]
    write_members(output.path / TAR, [(n, data) for n, data in members if data is not None])


def problems_of(output: Output) -> list[tuple[str, str]]:
    found = check_output(output)
    return [(problem.place, problem.what) for problem in found.problems if problem.kind != "missing"]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def repair(output: Output) -> Repair | None:
    return set_aside(output, check_output(output).problems)


def test_a_sound_output_of_tars_has_nothing_wrong(output: Output) -> None:
    found = check_output(output)
    assert found.problems == []
    assert (found.images, found.failed, len(found.shards)) == (7, 1, 2)


def test_of_a_hundred_bytes_in_tar_and_parquet_each_that_is_flipped_is_noticed(output: Output) -> None:
    for name in (TAR, PARQUET):
        whole = (output.path / name).read_bytes()
        # A parquet that another version of pyarrow wrote, which its version says, has other bytes.
        written_by = f"parquet-cpp-arrow version {pa.__version__}".encode()
        version = whole.find(written_by) + len("parquet-cpp-arrow version ")
        writer = range(version, whole.find(written_by) + len(written_by))
        for at in range(0, len(whole), max(1, len(whole) // 100)):
            if name == PARQUET and at in writer:
                continue
            (output.path / name).write_bytes(flipped(whole, at))
            found = examine_tar(output, 0)
            assert found.problems, f"byte {at} of {name}"
            assert all(problem.file.startswith(("00000.tar", "00000.parquet")) for problem in found.problems)
        (output.path / name).write_bytes(whole)
    assert examine_tar(output, 0).problems == []


@pytest.mark.parametrize("part", [0, 1, 511, 512, 600, 2000, 0.3, 0.6, 0.9])
def test_a_tar_that_was_cut_off_is_named(output: Output, part: float) -> None:
    file = output.path / TAR
    data = file.read_bytes()
    file.write_bytes(data[: int(part if isinstance(part, int) else len(data) * part)])
    assert any(place == TAR and "is cut off" in what for place, what in problems_of(output))


def test_a_tar_without_its_end_is_named(output: Output) -> None:
    file = output.path / TAR
    file.write_bytes(file.read_bytes().rstrip(b"\0").ljust(512 * 200, b"\0")[: file.stat().st_size - 10240])
    assert any("is cut off" in what for _, what in problems_of(output))


def test_a_flipped_byte_in_a_png_is_named_by_its_member(output: Output) -> None:
    change_member(output, "000000001.png", lambda data: flipped(data, len(data) // 2))
    (problem,) = [one for one in check_output(output).problems if one.kind != "missing"]
    assert (problem.kind, problem.file) == ("picture", f"{TAR}/000000001.png")
    assert "bytes were changed" in problem.what
    assert problem.image_id is not None


@pytest.mark.parametrize("ending", ["png", "txt", "json"])
def test_a_member_that_is_missing_is_named(output: Output, ending: str) -> None:
    change_member(output, f"000000001.{ending}", lambda _: None)
    assert problems_of(output)[0][0] == f"{TAR}/000000001.{ending}"
    assert "is missing" in problems_of(output)[0][1]


def test_a_sample_that_is_missing_is_a_gap(output: Output) -> None:
    members = [(n, data) for n, data in members_of(output.path / TAR) if not n.startswith("000000001")]
    write_members(output.path / TAR, members)
    assert problems_of(output) == [(TAR, "place 1 is neither a picture nor a failure")]


@pytest.mark.parametrize(
    "name", ["notes.txt", "000010000.png", "000000000.exe", "folder/000000000.png", ".DS"]
)
def test_a_member_that_does_not_belong_is_named(output: Output, name: str) -> None:
    write_members(output.path / TAR, [*members_of(output.path / TAR), (name, b"?")])
    ((place, what),) = problems_of(output)
    assert place == f"{TAR}/{name}"
    assert "does not belong to the shard" in what


def test_a_member_that_is_there_twice_is_named(output: Output) -> None:
    members = members_of(output.path / TAR)
    write_members(output.path / TAR, [*members, members[1]])
    assert problems_of(output) == [(f"{TAR}/000000000.png", "is there twice: member 11 has its name")]


def changed_record(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | fields).encode()


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("000000000.txt", lambda data: data + b" ", "is not the text that 000000000.json has"),
        ("000000000.json", lambda _: b"[]", "is not a JSON object"),
        ("000000000.json", changed_record(seed=1), "the line was changed"),
        ("000000000.json", changed_record(text="a cat"), "the line was changed"),
        ("000000000.json", changed_record(file_name="000000001.png"), "is of another sample"),
        ("000000000.png", lambda data: data + b"?", "bytes were changed"),
        (".failures.jsonl", lambda data: data.replace(b"foxes", b"cats") + b"{}\n", "is not a failure"),
    ],
)
def test_members_that_disagree_are_named(
    output: Output, name: str, change: Callable[[bytes], bytes], what: str
) -> None:
    change_member(output, name, change)
    assert any(place.startswith(f"{TAR}/{name}") and what in wrong for place, wrong in problems_of(output))


def test_another_picture_under_the_name_is_named(output: Output) -> None:
    other = dict(members_of(output.path / TAR))["000000001.png"]
    change_member(output, "000000000.png", lambda _: other)
    assert [place for place, _ in problems_of(output)] == [f"{TAR}/000000000.png"]


def test_a_parquet_that_is_missing_is_named_and_made_anew(output: Output) -> None:
    before = (output.path / PARQUET).read_bytes()
    (output.path / PARQUET).unlink()
    assert problems_of(output) == [(PARQUET, f"is missing: {TAR} is there without it")]
    tar = (output.path / TAR).stat()
    assert repair(output)
    assert problems_of(output) == []
    assert (output.path / PARQUET).read_bytes() == before
    assert (output.path / TAR).stat().st_ino == tar.st_ino


def columns_changed(table: pa.Table) -> Iterator[tuple[pa.Table, str]]:
    captions = table["caption"].to_pylist()
    yield (
        table.set_column(1, "caption", pa.array(["a cat", *captions[1:]])),
        "says other things of 000000000 than its tar: caption",
    )
    yield table.slice(1), "has no line of 000000000"
    yield pa.concat_tables([table, table.slice(0, 1)]), "twice"
    yield table.drop_columns(["seed"]), "has other columns than its tar gives: ['seed']"
    record = table.slice(0, 1).set_column(0, "key", pa.array(["000000009"]))
    yield pa.concat_tables([table, record]), "has a line of 000000009, which its tar has not"


@pytest.mark.parametrize("number", range(5))
def test_a_parquet_that_disagrees_with_its_tar_is_named_and_made_anew(output: Output, number: int) -> None:
    file = output.path / PARQUET
    table, what = list(columns_changed(pq.read_table(file)))[number]
    pq.write_table(table, file)
    ((place, wrong),) = problems_of(output)
    assert place == PARQUET
    assert what in wrong
    assert repair(output)
    assert problems_of(output) == []


def test_what_is_no_parquet_is_named(output: Output) -> None:
    (output.path / PARQUET).write_bytes(b"PAR1")
    assert "is no parquet" in problems_of(output)[0][1]


def test_a_parquet_without_its_tar_is_named_and_set_aside(output: Output) -> None:
    (output.path / TAR).unlink()
    assert problems_of(output) == [(PARQUET, f"is there without {TAR}, whose pictures it lists")]
    assert (done := repair(output))
    assert (output.path / done.folder / PARQUET).is_file()
    assert problems_of(output) == []


def test_a_tar_beside_a_folder_of_its_number_is_named(output: Output) -> None:
    (output.path / "00001").mkdir()
    (output.path / "00001/metadata.jsonl").touch()
    assert ("00001.tar", "is next to the folder 00001, and one of them is shard 1") in problems_of(output)


def test_an_image_that_another_tar_has_already_is_named(output: Output) -> None:
    first = dict(members_of(output.path / TAR))
    sample = [
        ("000010004.png", first["000000000.png"]),
        ("000010004.txt", first["000000000.txt"]),
        ("000010004.json", changed_record(file_name="000010004.png")(first["000000000.json"])),
    ]
    write_members(output.path / "00001.tar", [*members_of(output.path / "00001.tar"), *sample])
    (output.path / "00001.parquet").unlink()
    output.stored(1).complete()
    ((place, what),) = problems_of(output)
    assert place == "00001.tar/000010004.png"
    assert "which 00000.tar/000000000.png is already" in what
    assert repair(output)
    assert problems_of(output) == []
    assert len(members_of(output.path / "00001.tar")) == 13


def test_a_repair_keeps_every_sound_sample_to_the_byte(output: Output) -> None:
    file = output.path / TAR
    before, failures = dict(members_of(file)), output.shard_failures(0)
    change_member(output, "000000001.png", lambda data: flipped(data, len(data) // 2))
    damaged = file.read_bytes()
    done = repair(output)
    assert done is not None
    assert (output.path / done.folder / TAR).read_bytes() == damaged
    assert (output.path / done.folder / PARQUET).is_file()
    after = dict(members_of(file))
    note = json.loads(after.pop(".repaired.jsonl"))
    assert (note["position"], note["quarantine"]) == (1, "1")
    assert after == {name: data for name, data in before.items() if not name.startswith("000000001")}
    assert output.shard_failures(0) == failures
    assert problems_of(output) == []
    assert len(output.held_image_ids()) == 6
    keys = pq.read_table(output.path / PARQUET)["key"].to_pylist()
    assert keys == ["000000000", "000000002", "000000003"]


def test_a_second_repair_adds_to_what_the_first_noted(output: Output) -> None:
    for key in ("000000001", "000000000"):
        change_member(output, f"{key}.png", lambda data: data[:-1])
        assert repair(output)
        assert problems_of(output) == []
    notes = dict(members_of(output.path / TAR))[".repaired.jsonl"].splitlines()
    assert [json.loads(note)["position"] for note in notes] == [1, 0]


def test_what_a_cut_off_tar_still_holds_is_kept(output: Output) -> None:
    file = output.path / "00001.tar"
    before = dict(members_of(file))
    data = file.read_bytes()
    with tarfile.open(file) as tar:
        at = tar.getmember("000010002.txt").offset
    file.write_bytes(data[: at + 100])
    assert repair(output)
    assert problems_of(output) == []
    assert [record["file_name"] for record in output.records(1)] == ["000010000.png", "000010001.png"]
    after = dict(members_of(file))
    assert after.pop(".repaired.jsonl")
    assert after == {name: data for name, data in before.items() if name[:9] < "000010002"}


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(5))
def test_a_repair_that_is_killed_loses_nothing_and_the_next_one_ends_it(
    output: Output, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    change_member(output, "000000001.png", lambda data: data[:-1])
    damaged, before = (output.path / TAR).read_bytes(), members_of(output.path / TAR)
    calls = iter(range(step))

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **options: Any) -> None:
            lives = next(calls, None) is not None
            if lives or after:
                call(*arguments, **options)
            if not lives:
                raise Crash

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "link"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with pytest.raises(Crash):
            repair(output)
    repair(output)
    assert problems_of(output) == []
    assert damaged in [file.read_bytes() for file in output.private.glob("quarantine/*/00000.tar")]
    kept = [(name, data) for name, data in members_of(output.path / TAR) if name[0] != "."]
    sound = [(name, data) for name, data in before if name[0] != "." and not name.startswith("000000001")]
    assert kept == sound


@pytest.mark.parametrize(
    "spoil", [lambda data: b"", lambda data: flipped(data, 0), lambda data: b"junk" * 900]
)
def test_a_tar_of_which_nothing_is_sound_goes_whole(output: Output, spoil: Callable[[bytes], bytes]) -> None:
    file = output.path / TAR
    file.write_bytes(spoil(file.read_bytes()))
    damaged = file.read_bytes()
    assert (done := repair(output))
    assert not file.exists()
    assert not (output.path / PARQUET).exists()
    assert (output.path / done.folder / TAR).read_bytes() == damaged
    assert problems_of(output) == []
    assert output.shards() == [1]


def test_without_pyarrow_a_tar_is_examined_but_not_repaired(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_member(output, "000000001.png", lambda data: data[:-1])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problems: list[Problem] = check_output(output).problems
    assert [one.file for one in problems if one.kind == "picture"] == [f"{TAR}/000000001.png"]
    assert any("not examined" in note for note in check_output(output).notes)
    before = (output.path / TAR).read_bytes()
    with pytest.raises(OutputError, match=r"pip install 'imagemill\[parquet\]'"):
        set_aside(output, problems)
    assert (output.path / TAR).read_bytes() == before


def mangled(data: bytes, random: Random) -> bytes:
    """The data with a few bytes changed, replaced, cut off, or blocks of it left out or exchanged."""
    at, length = random.randrange(len(data)), random.randrange(1, 600)
    one, other = sorted(random.sample(range(len(data) // 512), 2))
    blocks = [data[start : start + 512] for start in range(0, len(data), 512)]
    match random.randrange(5):
        case 0:
            return flipped(data, at)
        case 1:
            return data[:at] + random.randbytes(length) + data[at + length :]
        case 2:
            return data[:at]
        case 3:
            return b"".join(blocks[:one] + blocks[one + 1 :])
        case _:
            blocks[one], blocks[other] = blocks[other], blocks[one]
            return b"".join(blocks)


def test_whatever_is_done_to_a_shard_is_noticed_and_a_repair_leaves_nothing_wrong(output: Output) -> None:
    random, whole = Random(1), {name: (output.path / name).read_bytes() for name in (TAR, PARQUET)}
    for _ in range(60):
        name = random.choices((TAR, PARQUET), (5, 1))[0]
        data = mangled(whole[name], random)
        if data == whole[name]:
            continue
        (output.path / name).write_bytes(data)
        assert problems_of(output)
        repair(output)
        assert problems_of(output) == []
        for each, sound in whole.items():
            (output.path / each).write_bytes(sound)


@pytest.mark.parametrize("value", [None, 5, 2**70, "x", [1], {"a": {}}, 1.5, True], ids=str)
def test_a_record_of_any_types_is_examined_without_falling_over(output: Output, value: object) -> None:
    members = members_of(output.path / TAR)
    record = next(data for name, data in members if name == "000000000.json")
    for column in json.loads(record):
        change_member(output, "000000000.json", changed_record(**{column: value}))
        assert problems_of(output) or json.loads(record)[column] == value, column
        write_members(output.path / TAR, members)


@pytest.mark.parametrize("size", [b"-0000002000\0", b"-0000000001\0"])
def test_a_tar_whose_sizes_lead_back_is_damaged_and_read_to_an_end(tmp_path: Path, size: bytes) -> None:
    file = tmp_path / "00000.tar"
    with file.open("wb") as sink:
        writer = TarWriter(sink)
        for name in ("000000000.txt", "000000001.txt"):
            writer.add(name, b"a fox")
        writer.close()
    data = bytearray(file.read_bytes())
    data[1024 + 124 : 1024 + 136] = size
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    file.write_bytes(data)
    with (
        LocalStore(tmp_path).opened(file.name) as opened,
        pytest.raises(DamagedTar, match="no member begins at byte 1024"),
    ):
        for _member in islice(TarReader(opened).members(), 10):
            pass
