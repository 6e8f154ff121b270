"""No folder gets more than 10,000 entries: neither a shard's nor the output's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.output.output import Output
from jobs.output.shard_names import FLAT, UNBOUNDED, ShardNames
from jobs.output.stored_shard import LayoutName
from jobs.settings import Settings
from producer.export.export import write_export
from producer.export.options import Options
from producer.manifest.manifest import load_manifest
from producer.plan.plan import plan_submission
from producer.plan.report import report
from producer.requests.folder_entries import names_to_begin, room_for
from producer.requests.prepared import prepare
from producer.submit.packed import pack


def written(folder: Path, **keys: object) -> Path:
    given = {"name": "cats", "model": "instant", "output": str(folder / "out"), "prompts": ["a cat"]}
    (folder / "cats.yaml").write_text(json.dumps(given | keys))
    return folder / "cats.yaml"


def packed_sizes(file: Path) -> tuple[list[int], str]:
    with pack(prepare(file, Settings())) as packed:
        return [shard.images for shard in packed.shards], packed.room().remark


def test_a_folder_of_ten_thousand_pictures_leaves_room_for_their_metadata_and_that_is_said(
    tmp_path: Path,
) -> None:
    many = {"images_per_prompt": 10_000, "height": 64, "width": 64}
    sizes, remark = packed_sizes(written(tmp_path, shard_size=10_000, settings=many))
    assert sizes == [9_999, 1]
    assert remark.startswith("shard_size = 10000: folders get 9,999 pictures")
    assert packed_sizes(written(tmp_path, shard_size=9_999, settings=many)) == ([9_999, 1], "")
    assert packed_sizes(written(tmp_path, shard_size=10_000)) == ([1], "")


def test_a_tar_may_hold_as_many_because_its_members_are_no_entries(tmp_path: Path) -> None:
    many = {"images_per_prompt": 10_000, "height": 64, "width": 64}
    file = written(tmp_path, shard_size=10_000, layout="webdataset", settings=many)
    assert packed_sizes(file) == ([10_000], "")


def test_an_export_to_folders_of_as_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--shard-size = 10000: .* use 9999"):
        options = Options(shard_size=10_000)
        write_export(tmp_path / "out", tmp_path / "new", "files", Settings(), options=options)


@pytest.mark.parametrize(
    ("layout", "shards", "first"),
    [
        ("files", 4_950, "00000"),
        ("files", 4_951, "000/000"),
        ("webdataset", 2_475, "00000"),
        ("webdataset", 2_476, "000/000"),
        ("webdataset", 150_000, "000/000"),
        ("webdataset", 500_001, "0000/000"),
    ],
)
def test_an_output_begins_with_names_for_twice_as_many_shards(
    layout: LayoutName, shards: int, first: str
) -> None:
    assert names_to_begin(layout, shards).name(0) == first


def output_with_shards(folder: Path, names: ShardNames, numbers: Iterable[int]) -> Output:
    output = Output(folder / "out")
    output.prepare()
    output.settle_names(names)
    for number in numbers:
        shard = output.shard_folder(number)
        shard.mkdir(parents=True)
        (shard / "metadata.jsonl").touch()
    return output


def test_what_no_longer_fits_in_one_folder_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    output = output_with_shards(tmp_path, FLAT, range(3))
    manifest = load_manifest(written(tmp_path))
    fits = room_for(manifest, output, range(3), 9_945, 9_945 * 64)
    full = room_for(manifest, output, range(3), 9_947, 9_947 * 64)
    assert (fits.names, fits.refusal) == (FLAT, "")
    assert full.refusal == (
        f"output {output.label} was begun with its shards all in one folder, and has no place for 9,950 "
        "shards: a folder gets 10,000 entries at most: name another output, use a larger shard_size (auto "
        "chooses one)"
    )
    assert room_for(manifest, output, range(3), 0, 0).refusal == ""


def test_a_nested_output_takes_many_more(tmp_path: Path) -> None:
    output = output_with_shards(tmp_path, ShardNames(6), [5])
    manifest = load_manifest(written(tmp_path, layout="webdataset"))
    assert room_for(manifest, output, [5], 999_994, 10**9).refusal == ""
    assert "in folders of a thousand" in room_for(manifest, output, [5], 999_995, 10**9).refusal


def test_an_output_of_an_earlier_version_goes_on_as_it_was_and_is_told_the_bound_of_the_hub(
    tmp_path: Path,
) -> None:
    output = output_with_shards(tmp_path, UNBOUNDED, [5])
    manifest = load_manifest(written(tmp_path))
    room = room_for(manifest, output, [5], 10_000, 640_000)
    assert (room.names, room.refusal) == (UNBOUNDED, "")
    assert "10,001 shards are 10,051 entries of the output's folder" in room.remark
    assert "`imagemill export` nests them" in room.remark
    assert room_for(manifest, output, [5], 9_000, 640_000).remark == ""


def test_more_shards_than_any_name_is_for_are_refused(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    manifest = load_manifest(written(tmp_path, shard_size=1))
    assert "has no place for 9,900,001 shards" in room_for(manifest, output, [], 9_900_001, 9_900_001).refusal


def test_plan_says_how_many_shards_are_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, shard_size=1, settings={"images_per_prompt": 10_000, "height": 64, "width": 64})
    report(plan_submission(prepare(file, Settings()), Settings()))
    assert "10,000 shards, a thousand in a folder: 000/000, 000/001 …" in capsys.readouterr().out


def test_plan_says_that_a_submission_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output_with_shards(tmp_path, FLAT, [0])
    file = written(tmp_path, shard_size=1, settings={"images_per_prompt": 10_000, "height": 64, "width": 64})
    report(plan_submission(prepare(file, Settings()), Settings()))
    assert "a submission is refused: output" in capsys.readouterr().out
