"""An output in a bucket is examined to its last byte as one in a folder is, and repaired."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from jobs.output.tar_records import RECORDS
from producer.doctor.checkup import check_output
from producer.doctor.quarantine import QUARANTINE, Repair, set_aside
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

Rendered = Callable[..., Output]
Members = list[tuple[str, bytes]]
TAR, PARQUET = "00000.tar", "00000.parquet"


@pytest.fixture
def output(rendered: Rendered, bucket: str) -> Output:
    """Two tars of four; the third image of the first failed."""
    return rendered(8, failed=(2,), layout="webdataset", place=f"s3://{bucket}/sets/foxes")


def members_of(output: Output, name: str = TAR) -> Members:
    with tarfile.open(fileobj=io.BytesIO(output.store.read(name))) as tar:
        return [(member.name, opened.read()) for member in tar if (opened := tar.extractfile(member))]


def write_members(output: Output, members: Members) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    output.store.replace(TAR, file.getvalue())


def change_member(output: Output, name: str, change: Callable[[bytes], bytes]) -> None:
    write_members(output, [(n, change(data) if n == name else data) for n, data in members_of(output)])


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def problems_of(output: Output) -> dict[str, str]:
    return {one.place: one.what for one in check_output(output).problems if one.kind != "missing"}


def repair(output: Output) -> Repair:
    done = set_aside(output, check_output(output).problems)
    assert done is not None
    return done


def held(output: Output) -> list[str]:
    return [
        record["file_name"] for shard in output.shards() for record in output.stored(shard).held_records()
    ]


def test_a_sound_output_has_nothing_wrong_and_each_tar_is_fetched_once(
    output: Output, object_store: BreakableStore
) -> None:
    object_store.forget()
    found = check_output(output)
    assert (found.problems, found.images, found.failed, len(found.shards)) == ([], 7, 1, 2)
    sizes = [output.store.size(f"0000{n}.{ending}") for n in range(2) for ending in ("tar", "parquet")]
    assert object_store.traffic(Kind.GET).sent < 1.2 * sum(sizes) + 20_000


@pytest.mark.parametrize("ending", ["png", "json"])
def test_a_flipped_byte_is_named_set_aside_and_the_rest_written_again_with_its_records(
    output: Output, ending: str
) -> None:
    before, parquet = output.store.read(TAR), output.store.read(PARQUET)
    change_member(output, f"000000001.{ending}", flipped)
    damaged = output.store.read(TAR)
    assert f"{TAR}/000000001.{ending}" in problems_of(output)
    assert repair(output).folder == f"{QUARANTINE}/1"
    assert output.store.read(f"{QUARANTINE}/1/{TAR}") == damaged
    assert output.store.read(f"{QUARANTINE}/1/{PARQUET}") == parquet
    assert problems_of(output) == {}
    names = [name for name, _ in members_of(output)]
    assert names[:3] == [".failures.jsonl", ".repaired.jsonl", RECORDS]
    assert names[3:] == [f"00000000{n}.{one}" for n in (0, 3) for one in ("png", "txt", "json")]
    assert held(output) == ["000000000.png", "000000003.png", *(f"00001000{n}.png" for n in range(4))]
    assert dict(output.pictures(0, ["000000003.png"]))["000000003.png"] in before
    assert len(output.failures()) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_tar_that_was_cut_off_is_named_and_what_is_whole_stays(output: Output, share: float) -> None:
    data = output.store.read(TAR)
    output.store.replace(TAR, data[: int(len(data) * share)])
    problems = check_output(output).problems
    assert any(one.file == TAR and "is cut off" in one.what for one in problems)
    assert not any(RECORDS in one.file for one in problems)
    if share < 0.9:  # then it has its pictures
        with pytest.raises(OutputError, match=r"00000\.tar.*(cut off|tells of)"):
            output.held_image_ids()
    repair(output)
    assert problems_of(output) == {}
    assert len(held(output)) == (4 if share < 0.3 else 5 if share < 0.7 else 7)


def test_a_parquet_that_is_missing_or_another_is_written_again_from_the_tar(output: Output) -> None:
    parquet = output.store.read(PARQUET)
    output.store.remove(PARQUET)
    assert problems_of(output) == {PARQUET: f"is missing: {TAR} is there without it"}
    repair(output)
    assert output.store.read(PARQUET) == parquet
    output.store.copy("00001.parquet", PARQUET)
    assert "has no line of" in problems_of(output)[PARQUET]
    repair(output)
    assert (output.store.read(PARQUET), problems_of(output)) == (parquet, {})


@pytest.mark.parametrize("lie", ["another tar's", "no zstd", "cut"])
def test_a_member_of_records_that_lies_is_named_and_made_again(output: Output, lie: str) -> None:
    sound = output.store.read(TAR)
    told = dict(members_of(output, "00001.tar"))[RECORDS]
    change_member(output, RECORDS, lambda own: {"another tar's": told, "no zstd": b"x"}.get(lie, own[:-4]))
    [(place, what)] = problems_of(output).items()
    assert place == f"{TAR}/{RECORDS}"
    assert what.startswith("tells ")
    repair(output)
    assert output.store.read(TAR) == sound
    assert problems_of(output) == {}


def test_what_is_foreign_and_what_is_lost_is_named_and_left_alone(output: Output) -> None:
    output.store.replace("holiday/beach.JPG", b"x")
    output.store.replace("notes.txt", b"x")
    output.store.remove("00001.tar")
    output.store.remove("00001.parquet")
    output.store.replace(f".imagemill/uploads/00002/1-a/{TAR}", b"x")
    found = check_output(output)
    problems = {one.place: one.what for one in found.problems}
    assert "is not imagemill's" in problems["holiday"]
    assert "counts 2 shards, 1 is there" in problems["job.json"]
    assert any("holds 1 upload of workers" in note for note in found.notes)
    assert set_aside(output, found.problems) is None


def test_a_folder_in_the_place_of_a_shard_is_named_and_left_alone(output: Output) -> None:
    output.store.replace("00007/metadata.jsonl", b"{}\n")
    output.store.replace("00008.tar/metadata.jsonl", b"{}\n")
    found = check_output(output)
    assert {one.file for one in found.problems} == {"00007", "00008.tar"}
    assert all("is a folder, as of layout: files" in one.what for one in found.problems)
    assert set_aside(output, found.problems) is None
    assert output.store.exists("00007/metadata.jsonl")


def test_a_repair_that_is_cut_short_loses_nothing_and_is_gone_on_with(
    output: Output, object_store: BreakableStore
) -> None:
    change_member(output, "000000001.png", flipped)
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.PUT}), keys=f"foxes/{TAR}$", status=403))
    with pytest.raises(OutputError, match="cannot be repaired"):
        repair(output)
    object_store.withdraw()
    assert [*problems_of(output)] == [f"{TAR}/000000001.png"]
    assert repair(output).folder == f"{QUARANTINE}/2"
    assert (problems_of(output), len(held(output))) == ({}, 6)


def test_a_place_without_an_output_and_credentials_that_are_refused_are_told(
    output: Output, bucket: str, object_store: BreakableStore
) -> None:
    with pytest.raises(OutputError, match="is no output of imagemill"):
        check_output(Output.at(f"s3://{bucket}/sets/other"))
    with pytest.raises(OutputError, match=r"NoSuchBucket.*check the bucket's name"):
        check_output(Output.at("s3://no-such-bucket/sets"))
    object_store.order(Fault(Action.ANSWER, frozenset({Kind.GET}), keys=TAR, status=403))
    found = check_output(output)
    [problem] = [one for one in found.problems if one.kind == "unreadable"]
    assert (problem.file, problem.cut) == (TAR, None)
    assert "check the bucket's name, its endpoint and the credentials" in problem.remedy
