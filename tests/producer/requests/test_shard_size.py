"""`shard_size: auto` aims at 1,000 pictures or 300 MB a shard, and gives the same shards again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.output.output import Output
from jobs.settings import Settings
from producer.manifest.manifest import load_manifest
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare
from producer.submit.job_spec import job_spec
from producer.submit.packed import pack

LARGE, SMALL = {"height": 1024, "width": 1024}, {"height": 64, "width": 64}


def written(folder: Path, **keys: object) -> Path:
    given = {"name": "cats", "model": "instant", "output": str(folder / "out"), "prompts": ["a cat"]}
    (folder / "cats.yaml").write_text(json.dumps(given | {"shard_size": "auto"} | keys))
    return folder / "cats.yaml"


def packed_sizes(file: Path, below: int | None = None) -> list[int]:
    with pack(prepare(file, Settings()), below=below) as packed:
        return [shard.images for shard in packed.shards]


def held_shard(output: Output, number: int, picture_bytes: int, image_format: str = "png") -> None:
    """A shard of one picture of a million pixels that takes so many bytes."""
    shard = output.shard_folder(number)
    shard.mkdir(parents=True)
    record = {"file_name": "000000000.png", "image_id": f"{number:016x}", "text": "a dog"}
    record |= {"height": 1000, "width": 1000, "image_format": image_format}
    (shard / "metadata.jsonl").write_text(f"{json.dumps(record)}\n")
    (shard / "000000000.png").write_bytes(bytes(picture_bytes))


def test_small_pictures_are_a_thousand_to_a_shard_and_large_ones_three_hundred_megabytes(
    tmp_path: Path,
) -> None:
    prompts = [
        {"prompt": "a cat", "images_per_prompt": n, **size} for n, size in ((200, LARGE), (1_001, SMALL))
    ]
    sizes = packed_sizes(written(tmp_path, prompts=prompts))
    assert sizes == [178, 1_000, 22, 1]
    # As PNG of a photograph, 1.6 bytes a pixel.
    assert 290e6 < 178 * 1024 * 1024 * 1.6 < 300e6


def test_formats_that_take_less_get_more_pictures(tmp_path: Path) -> None:
    many = {"images_per_prompt": 600, **LARGE}
    first = [packed_sizes(written(tmp_path, image_format=form, settings=many))[0] for form in ("png", "jpeg")]
    assert first == [178, 567]


def test_the_outputs_own_pictures_tell_how_large_they_are(tmp_path: Path) -> None:
    file = written(tmp_path, settings={"images_per_prompt": 200, **LARGE})
    output = Output(tmp_path / "out")
    for number in range(3):
        held_shard(output, number, 3_000_000)
    assert packed_sizes(file) == [95, 95, 10]
    held_shard(output, 3, 300_000_000)
    assert packed_sizes(file, below=3) == [95, 95, 10]
    assert packed_sizes(file)[0] < 10


def test_pictures_in_another_format_tell_nothing(tmp_path: Path) -> None:
    held_shard(Output(tmp_path / "out"), 0, 30_000_000, "jpeg")
    assert packed_sizes(written(tmp_path, settings={"images_per_prompt": 200, **LARGE})) == [178, 22]


def test_the_job_keeps_the_bounds_and_a_number_keeps_none(tmp_path: Path) -> None:
    spec = job_spec(prepare(written(tmp_path), Settings()))
    assert (spec.shard_size, spec.shard_bytes, spec.manifest["shard_size"]) == (1_000, 300_000_000, "auto")
    assert "shard_bytes" not in job_spec(prepare(written(tmp_path, shard_size=64), Settings())).to_mapping()


def test_plan_says_how_many_shards_it_makes(tmp_path: Path) -> None:
    file = written(tmp_path, settings={"images_per_prompt": 200, **LARGE})
    remark = plan_submission(prepare(file, Settings()), Settings()).remark
    assert remark == "shard_size = auto: 2 shards, of 100 pictures on average"


@pytest.mark.parametrize("value", ["large", "64", 1.5, None])
def test_other_words_are_refused_at_their_place(value: object, tmp_path: Path) -> None:
    file = written(tmp_path, shard_size=value)
    with pytest.raises(
        ManifestError, match=r"shard_size = .*: must be a whole number without a point, or auto"
    ):
        load_manifest(file)
