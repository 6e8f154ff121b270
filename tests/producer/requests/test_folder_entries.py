"""The hub takes 10,000 entries a folder: a shard never has more, and an output that gets more is said to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.settings import Settings
from producer.export.export import write_export
from producer.export.options import Options
from producer.manifest.manifest import load_manifest
from producer.plan.plan import plan_submission
from producer.plan.report import report
from producer.requests.folder_entries import entries_remark
from producer.requests.prepared import prepare
from producer.submit.packed import pack


def written(folder: Path, **keys: object) -> Path:
    given = {"name": "cats", "model": "instant", "output": str(folder / "out"), "prompts": ["a cat"]}
    (folder / "cats.yaml").write_text(json.dumps(given | keys))
    return folder / "cats.yaml"


def packed_sizes(file: Path) -> tuple[list[int], str]:
    with pack(prepare(file, Settings())) as packed:
        return [shard.images for shard in packed.shards], packed.remark


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
    ("layout", "there", "new", "images", "remedy"),
    [
        ("files", 0, 9_994, 9_994 * 64, ""),
        ("files", 0, 9_995, 9_995 * 64, "use shard_size: 65"),
        ("files", 0, 15_625, 1_000_000, "use shard_size: 101"),
        ("files", 9_000, 1_000, 64_000, "use shard_size: 65"),
        ("files", 20_000, 1, 64, "use several outputs"),
        ("files", 20_000, 0, 0, ""),
        ("webdataset", 0, 4_997, 4_997 * 64, ""),
        ("webdataset", 0, 15_625, 1_000_000, "use shard_size: 201"),
        ("webdataset", 0, 10**6, 10**10, "use several outputs"),
    ],
)
def test_an_output_of_more_is_told_which_shard_size_it_needs(
    layout: str, there: int, new: int, images: int, remedy: str, tmp_path: Path
) -> None:
    manifest = load_manifest(written(tmp_path, layout=layout))
    remark = entries_remark(manifest, there, new, images)
    assert remark.endswith(remedy) if remedy else remark == ""


def test_plan_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, shard_size=1, settings={"images_per_prompt": 10_000, "height": 64, "width": 64})
    report(plan_submission(prepare(file, Settings()), Settings()))
    assert "10,000 shards are 10,006 entries of the output's folder" in capsys.readouterr().out
