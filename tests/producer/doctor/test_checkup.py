"""An output examined as a whole: images twice, foreign folders, damaged reports, what is left over."""

import json
import shutil
from collections.abc import Callable

import pytest

from jobs.errors import OutputError
from jobs.output.card import dataset_card
from jobs.output.contents import contents
from jobs.output.line_order import Places, Split
from jobs.output.output import Output
from jobs.output.split_table import write_split
from producer.doctor.checkup import check_output
from producer.doctor.examine_files import examine_shard
from tests.reported import Reported

Rendered = Callable[..., Output]


def problems_of(output: Output) -> list[tuple[str, str, str]]:
    """Kind, place and words of every problem."""
    return [(problem.kind, problem.place, problem.what) for problem in check_output(output).problems]


def records(output: Output, shard: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.metadata_file(shard).read_text().splitlines()]


def test_an_output_that_workers_wrote_is_proved(rendered: Rendered) -> None:
    checkup = check_output(rendered(10, failed=(5,)))
    assert checkup.problems == []
    assert checkup.notes == ["foxes-1: 1 of 10 images failed: see failures.jsonl"]
    assert (checkup.images, len(checkup.shards), checkup.failed, checkup.missing) == (9, 3, 1, {})


def test_every_shards_problems_are_reported_in_order(rendered: Rendered) -> None:
    output = rendered(12)
    for shard in (2, 0):
        (output.shard_folder(shard) / "stray.txt").touch()
    assert problems_of(output) == [
        ("stray", "00000/stray.txt", "does not belong to the shard"),
        ("stray", "00002/stray.txt", "does not belong to the shard"),
    ]


def test_an_image_in_two_shards_is_named_where_it_came_later(rendered: Rendered) -> None:
    output = rendered(8)
    (record,) = records(output, 0)[2:3]
    folder = output.shard_folder(2)
    folder.mkdir()
    shutil.copy(output.shard_folder(0) / "000000002.png", folder / "000020000.png")
    output.metadata_file(2).write_text(json.dumps(record | {"file_name": "000020000.png"}) + "\n")
    what = f"is image {record['image_id']}, which 00000/000000002.png is already"
    assert problems_of(output) == [("doubled", "00002/000020000.png", what)]


def test_a_copy_of_a_shard_is_named_image_by_image(rendered: Rendered) -> None:
    output = rendered(8)
    shutil.copytree(output.shard_folder(1), output.shard_folder(7))
    kinds = {(kind, place.partition("/")[0]) for kind, place, _what in problems_of(output)}
    assert kinds == {("line", "00007"), ("stray", "00007")}


def test_a_broken_picture_that_was_rendered_again_is_no_image_twice(rendered: Rendered) -> None:
    output = rendered(8)
    (record,) = records(output, 0)[2:3]
    folder = output.shard_folder(2)
    folder.mkdir()
    (output.shard_folder(0) / "000000002.png").rename(folder / "000020000.png")
    output.metadata_file(2).write_text(json.dumps(record | {"file_name": "000020000.png"}) + "\n")
    assert [kind for kind, _place, _what in problems_of(output)] == ["picture"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "foxes"}', "null"])
def test_a_damaged_manifest_or_report_is_named(rendered: Rendered, text: str) -> None:
    output = rendered(4)
    (output.jobs / "foxes-1.json").write_text(text)
    (output.path / "job.json").write_text(text)
    problems = problems_of(output)
    assert [(kind, place) for kind, place, _what in problems] == [
        ("report", "job.json"), ("report", ".imagemill/jobs/foxes-1.json")
    ]  # fmt: skip


def test_a_folder_or_file_in_a_shards_place_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    output.shard_folder(5).mkdir()
    output.shard_folder(6).touch()
    what = "is no shard that imagemill committed: it has neither metadata.jsonl nor failures"
    assert problems_of(output) == [("folder", "00005", what), ("folder", "00006", what)]


@pytest.mark.parametrize("name", ["0003/metadata.jsonl", "copies/fox.PNG", "fox.webp"])
def test_what_dataset_readers_would_take_for_data_is_named(rendered: Rendered, name: str) -> None:
    output = rendered(4)
    (output.path / name).parent.mkdir(exist_ok=True)
    (output.path / name).touch()
    ((kind, place, what),) = problems_of(output)
    assert (kind, place) == ("folder", name.partition("/")[0])
    assert "dataset readers" in what


def test_what_a_person_keeps_beside_the_shards_is_left_alone(rendered: Rendered) -> None:
    output = rendered(4)
    for name in (".git", "notes"):
        (output.path / name).mkdir()
        (output.path / name / "text.txt").touch()
    for name in ("README.md", "preview.jpg", "LICENSE", ".gitattributes"):
        (output.path / name).touch()
    checkup = check_output(output)
    assert (checkup.problems, checkup.notes) == ([], [])


def test_what_waits_in_the_private_folder_is_reported(rendered: Rendered) -> None:
    output = rendered(4)
    for shard, name in ((3, "a"), (3, "b"), (4, "c")):
        folder = output.spool_folder(shard, "1-a") / "metadata"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").touch()
    (output.path / ".job.json.0123.tmp").touch()
    (output.private / "quarantine" / "1").mkdir(parents=True)
    checkup = check_output(output)
    assert checkup.problems == []
    assert checkup.notes == [
        ".imagemill/spool: holds 3 images of 2 unfinished shards, for the next submission to go on from",
        ".imagemill/quarantine: holds what 1 repair set aside; remove it at will",
        ".job.json.0123.tmp: left by a write that was cut short; remove it at will",
    ]


def test_a_known_shard_is_not_read_again(rendered: Rendered) -> None:
    output = rendered(8)
    known = [examine_shard(output, 0)]
    for shard in (0, 1):
        (output.shard_folder(shard) / "stray.txt").touch()
    reported = Reported()
    checkup = check_output(output, known=known, reporter=reported)
    assert [problem.place for problem in checkup.problems] == ["00001/stray.txt"]
    assert reported.counts == [(1, 1)]


def test_what_is_no_output_is_refused(tmp_path) -> None:
    with pytest.raises(OutputError, match="is no output of imagemill"):
        check_output(Output(tmp_path))
    with pytest.raises(OutputError, match="cannot be read"):
        check_output(Output(tmp_path / "none"))


def with_another_line(output: Output) -> None:
    """The first picture once more, in a shard of its own, for a line with an id."""
    (record,) = records(output, 0)[:1]
    shutil.copytree(output.shard_folder(0), output.shard_folder(9))
    for file in output.shard_folder(9).iterdir():
        file.unlink()
    shutil.copy(output.shard_folder(0) / "000000000.png", output.shard_folder(9) / "000090000.png")
    line = record | {"file_name": "000090000.png", "id": "another"}
    output.metadata_file(9).write_text(json.dumps(line) + "\n")


def test_a_picture_may_stand_for_lines_with_other_ids(rendered: Rendered) -> None:
    output = rendered(8)
    with_another_line(output)
    assert [kind for kind, *_ in problems_of(output)] == []
    record = records(output, 9)[0]
    output.metadata_file(9).write_text(json.dumps(record | {"id": None}) + "\n")
    assert [(kind, place) for kind, place, _ in problems_of(output)] == [("doubled", "00009/000090000.png")]


def test_a_line_that_was_asked_for_and_has_only_its_picture_there_is_noted(rendered: Rendered) -> None:
    prompts = [{"prompt": "a fox", "seed": 1, "id": id} for id in ("1", "2")]
    output = rendered(1, prompts=prompts)
    assert any("1 line of pictures that are there" in note for note in check_output(output).notes)


def test_the_table_that_the_card_names_is_there_and_whole(rendered: Rendered) -> None:
    output = rendered(8)
    name, table = "records.parquet", output.path / "records.parquet"
    split = Split(Places(output, "foxes-1"))
    found = contents(output, split)
    write_split(output, split, found.columns, output.path)
    (output.path / "README.md").write_text(dataset_card(found, table=name))
    assert problems_of(output) == []
    table.write_bytes(table.read_bytes()[:-9])
    assert [(kind, place) for kind, place, _ in problems_of(output)] == [("table", name)]
    table.unlink()
    assert [(kind, what[:10]) for kind, _, what in problems_of(output)] == [("table", "is missing")]
