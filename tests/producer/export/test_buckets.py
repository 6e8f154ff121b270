"""Exports from a bucket and to one: the same as on a disk; what was cut short is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import Interrupted, OutputError
from jobs.output.output import Output
from jobs.settings import Settings
from producer.doctor.checkup import check_output
from producer.export.export import Exported, write_export
from producer.export.options import Form, Options
from tests.object_store.breakable_store import BreakableStore
from tests.object_store.fault import Action, Fault, Kind

Rendered = Callable[..., Output]
NAMING = frozenset({Kind.COPY, Kind.COMPLETE_UPLOAD})
"""What gives an object its name."""
SHARDS = [f"0000{n}.{ending}" for n in range(3) for ending in ("parquet", "tar")]


@pytest.fixture
def place(bucket: str) -> str:
    """Where the source is."""
    return f"s3://{bucket}/sets/foxes"


@pytest.fixture
def source(rendered: Rendered, place: str) -> Output:
    """Seven pictures in two tars."""
    return rendered(8, failed=(2,), layout="webdataset", place=place)


def export(source: str | Path, target: str | Path, to: Form, **options: Any) -> Exported:
    return write_export(source, target, to, Settings(), options=Options(**options))


def files_of(place: str) -> list[str]:
    return sorted(Output.at(place).store.files_below(""))


def contents_of(place: str | Path) -> list[tuple[dict[str, Any], bytes]]:
    output = Output.at(str(place))
    found = []
    for shard in output.shards():
        records = list(output.records(shard))
        data = dict(output.pictures(shard, [record["file_name"] for record in records]))
        found += [({**one, "file_name": "", "index": 0}, data[one["file_name"]]) for one in records]
    return found


@pytest.mark.parametrize("to", ["files", "webdataset", "parquet", "flat", "captions", "grid"])
def test_a_bucket_gives_every_form_as_a_folder_does(
    source: Output, place: str, rendered: Rendered, tmp_path: Path, to: Form
) -> None:
    local = rendered(8, failed=(2,), layout="webdataset")
    assert export(place, tmp_path / "far", to).images == export(local.path, tmp_path / "near", to).images == 7
    far, near = (
        {
            str(file.relative_to(folder)): file.read_bytes()
            for file in [folder, *folder.rglob("*")]
            if file.is_file()
        }
        for folder in (tmp_path / "far", tmp_path / "near")
    )
    assert far == near


def test_a_new_output_in_a_bucket_has_the_same_pictures_and_lines_and_a_card(
    source: Output, place: str, bucket: str
) -> None:
    target = f"s3://{bucket}/sets/copy"
    done = export(place, target, "webdataset", shard_size=3)
    assert (done.target, done.shards, done.images) == (target, 3, 7)
    assert files_of(target) == [*SHARDS, "README.md"]
    assert contents_of(target) == contents_of(place)
    assert check_output(Output.at(target)).problems == []


def test_a_folder_goes_to_a_bucket_and_comes_back(rendered: Rendered, bucket: str, tmp_path: Path) -> None:
    local, target = rendered(8), f"s3://{bucket}/copy"
    export(local.path, target, "webdataset", shard_size=3)
    export(target, tmp_path / "back", "files", shard_size=4)
    assert contents_of(tmp_path / "back") == contents_of(local.path)


def test_an_export_that_is_cut_short_is_known_goes_on_and_ends_as_another(
    source: Output, place: str, bucket: str, object_store: BreakableStore
) -> None:
    target, whole = f"s3://{bucket}/sets/copy", f"s3://{bucket}/sets/whole"
    export(place, whole, "webdataset", shard_size=3)
    object_store.order(Fault(Action.ANSWER, NAMING, keys=r"copy/00001\.tar", status=403))
    with pytest.raises(OutputError, match=r"copy/00001\.tar: cannot be reached .* goes on with s3://"):
        export(place, target, "webdataset", shard_size=3)
    object_store.withdraw()
    assert files_of(target) == [".export.json", "00000.parquet", "00000.tar"]
    [problem] = check_output(Output.at(target)).problems
    assert (problem.file, problem.kind) == (".export.json", "lost")
    with pytest.raises(OutputError, match="another export was begun there"):
        export(place, target, "webdataset", shard_size=2)
    first = Output.at(target).store.modified("00000.tar")
    export(place, target, "webdataset", shard_size=3)
    assert Output.at(target).store.modified("00000.tar") == first
    stores = [Output.at(one).store for one in (target, whole)]
    assert files_of(target) == files_of(whole) == [*SHARDS, "README.md"]
    assert [stores[0].read(name) for name in SHARDS] == [stores[1].read(name) for name in SHARDS]
    assert stores[0].read("README.md") == stores[1].read("README.md")


def test_a_tar_of_another_in_an_exports_place_is_not_taken_for_its_own(
    source: Output, place: str, bucket: str, object_store: BreakableStore
) -> None:
    target = f"s3://{bucket}/sets/copy"
    object_store.order(Fault(Action.ANSWER, NAMING, keys=r"copy/00001\.tar", status=403))
    with pytest.raises(OutputError, match="cannot be reached"):
        export(place, target, "webdataset", shard_size=3)
    object_store.withdraw()
    Output.at(target).store.replace("00001.tar", source.store.read("00001.tar"))
    with pytest.raises(OutputError, match=r"00001\.tar: is there already, and is not the export's"):
        export(place, target, "webdataset", shard_size=3)


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(
    source: Output, place: str, bucket: str, arm_failpoints: Callable[..., None]
) -> None:
    target = f"s3://{bucket}/sets/copy"
    arm_failpoints(_stopped_after_the_second())
    with pytest.raises(Interrupted, match="the same command goes on"):
        export(place, target, "webdataset", shard_size=3)
    assert ".export.json" in files_of(target)
    export(place, target, "webdataset", shard_size=3)
    assert files_of(target) == [*SHARDS, "README.md"]


def _stopped_after_the_second() -> Callable[[str, Path], None]:
    reached = []

    def hook(point: str, _path: Path) -> None:
        if point == "after commit":
            reached.append(point)
            if len(reached) == 2:
                raise KeyboardInterrupt

    return hook


def test_a_source_that_is_refused_in_the_middle_leaves_what_the_same_command_goes_on_with(
    source: Output,
    place: str,
    bucket: str,
    object_store: BreakableStore,
    arm_failpoints: Callable[..., None],
) -> None:
    target = f"s3://{bucket}/sets/copy"

    def refuse(point: str, _path: Path) -> None:
        if point == "after commit":
            object_store.order(Fault(Action.ANSWER, frozenset({Kind.GET}), keys=r"foxes/.*\.tar", status=403))

    arm_failpoints(refuse)
    with pytest.raises(OutputError, match=r"foxes/00001\.tar: cannot be read .*: check the bucket's name"):
        export(place, target, "webdataset", shard_size=3)
    object_store.withdraw()
    assert files_of(target) == [".export.json", "00000.parquet", "00000.tar"]
    arm_failpoints(lambda point, path: None)
    export(place, target, "webdataset", shard_size=3)
    assert files_of(target) == [*SHARDS, "README.md"]


def test_answers_that_are_lost_and_a_store_that_is_busy_change_nothing(
    source: Output, place: str, bucket: str, object_store: BreakableStore
) -> None:
    target = f"s3://{bucket}/sets/copy"
    for number in range(3):
        keys = rf"copy/0000{number}\.tar$"
        object_store.order(Fault(Action.LOSE_ANSWER, NAMING, keys=keys, count=1, resets=False))
    object_store.order(Fault(Action.ANSWER, share=0.2, count=12, status=503))
    export(place, target, "webdataset", shard_size=3)
    object_store.withdraw()
    assert files_of(target) == [*SHARDS, "README.md"]
    assert contents_of(target) == contents_of(place)


def test_a_parquet_goes_to_an_object_whole_and_never_over_another(
    source: Output, place: str, bucket: str, tmp_path: Path, object_store: BreakableStore
) -> None:
    target = f"s3://{bucket}/tables/foxes.parquet"
    object_store.order(Fault(Action.LOSE_ANSWER, NAMING, keys="foxes.parquet$", count=1))
    export(place, target, "parquet")
    export(place, tmp_path / "foxes.parquet", "parquet")
    assert files_of(f"s3://{bucket}/tables") == ["foxes.parquet"]
    assert (
        Output.at(f"s3://{bucket}/tables").store.read("foxes.parquet")
        == (tmp_path / "foxes.parquet").read_bytes()
    )
    with pytest.raises(OutputError, match="already exists"):
        export(place, target, "parquet")


def test_a_broken_picture_leaves_nothing_at_the_target(source: Output, place: str, bucket: str) -> None:
    target, tar = f"s3://{bucket}/sets/copy", source.store.read("00001.tar")
    name = "000010001.png"
    picture = dict(source.pictures(1, [name]))[name]
    source.store.replace("00001.tar", tar.replace(picture, picture[:-9] + b"x" + picture[-8:]))
    with pytest.raises(OutputError, match=r"000010001\.png is not the picture .* `imagemill doctor s3://"):
        export(place, target, "webdataset", shard_size=3)
    assert files_of(target) == []


def test_impossible_targets_are_refused(source: Output, place: str, bucket: str, tmp_path: Path) -> None:
    for to in ("files", "flat", "captions", "geneval", "grid"):
        with pytest.raises(OutputError, match=f"is in a bucket, and --to {to} writes a folder"):
            export(place, f"s3://{bucket}/sets/copy", to)  # type: ignore[arg-type]
    for target in (place, f"{place}/copy"):
        with pytest.raises(OutputError, match="is the output that is exported, or inside it"):
            export(place, target, "webdataset")
    with pytest.raises(OutputError, match="already exists: remove what is there"):
        export(place, f"s3://{bucket}/sets", "webdataset")
    with pytest.raises(OutputError, match="a parquet is read on this machine: download it"):
        export(f"s3://{bucket}/a.parquet", tmp_path / "out", "files")
    with pytest.raises(OutputError, match="names no object"):
        export(place, f"s3://{bucket}", "parquet")
    with pytest.raises(OutputError, match="holds no picture to export"):
        export(f"s3://{bucket}/nothing", tmp_path / "out", "files")
    with pytest.raises(OutputError, match="no bucket's name"):
        export("s3://B!/x", tmp_path / "out", "files")
