"""A repair: what is wrong leaves the shards, nothing is lost, and the rest keeps its every byte."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.output.output import Output
from producer.doctor.checkup import check_output
from producer.doctor.findings import Problem
from producer.doctor.quarantine import Repair, set_aside

Rendered = Callable[..., Output]


def repair(output: Output) -> Repair | None:
    return set_aside(output, check_output(output).problems)


def problems(output: Output, *, besides: str = "missing") -> list[Problem]:
    return [problem for problem in check_output(output).problems if problem.kind != besides]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def every_damage(output: Output) -> None:
    """Of five shards of four: something of each kind that a repair mends."""
    truncate(output.shard_folder(0) / "000000001.png")
    (output.shard_folder(0) / "000000002.png").unlink()
    (output.shard_folder(0) / "cat.jpg").write_bytes(b"meow")
    lines = output.metadata_file(1).read_bytes().splitlines(keepends=True)
    output.metadata_file(1).write_bytes(b"".join(lines[:2]) + lines[2][:-30])
    output.metadata_file(2).unlink()
    record = json.loads(output.metadata_file(0).read_text().splitlines()[0]) | {"file_name": "000030004.png"}
    shutil.copy(output.shard_folder(0) / "000000000.png", output.shard_folder(3) / "000030004.png")
    with output.metadata_file(3).open("a") as file:
        file.write(json.dumps(record) + "\n" + "{\n")
    failures = output.failures_file(4).read_text()
    output.failures_file(4).write_text(failures + "no failure\n")
    (output.shard_folder(9)).mkdir()


def test_a_repair_leaves_only_what_is_sound(rendered: Rendered) -> None:
    output = rendered(20, failed=(18,))
    before = check_output(output)
    assert before.problems == []
    every_damage(output)
    damaged = contents(output.path)
    found = check_output(output)
    assert {problem.kind for problem in found.problems} == {
        "picture", "stray", "line", "folder", "doubled", "missing"
    }  # fmt: skip
    done = set_aside(output, found.problems)
    assert done is not None
    assert done.shards == {0, 1, 2, 3, 4, 9}
    after = check_output(output)
    assert [problem.kind for problem in after.problems] == ["missing"]
    sound = {image.image_id for shard in found.shards for image in shard.images}
    assert {image.image_id for shard in after.shards for image in shard.images} == sound
    # Every byte that was there still is: in its place or in the quarantine.
    kept = set(contents(output.path).values())
    for name, data in damaged.items():
        whole = data in kept
        lines = {line for one in kept for line in one.splitlines()}
        assert whole or set(data.splitlines()) <= lines, name


def test_what_stays_in_a_shard_keeps_its_every_byte(rendered: Rendered) -> None:
    output = rendered(4)
    before = contents(output.shard_folder(0))
    truncate(output.shard_folder(0) / "000000001.png")
    done = repair(output)
    assert done is not None
    after = contents(output.shard_folder(0))
    for position in (0, 2, 3):
        assert after[f"00000000{position}.png"] == before[f"00000000{position}.png"]
    lines = before["metadata.jsonl"].splitlines(keepends=True)
    assert after["metadata.jsonl"] == lines[0] + lines[2] + lines[3]
    assert contents(output.path / done.folder / "00000") == {
        "000000001.png": before["000000001.png"][:100], "metadata.jsonl": before["metadata.jsonl"]
    }  # fmt: skip
    (why,) = json.loads((output.path / done.folder / "problems.json").read_text())
    assert (why["kind"], why["file"], why["line"]) == ("picture", "00000/000000001.png", None)
    assert why["what"].startswith("bytes were changed")


def test_a_repair_explains_the_gaps_that_it_makes(rendered: Rendered) -> None:
    output = rendered(8)
    truncate(output.shard_folder(0) / "000000001.png")
    (output.shard_folder(0) / "000000002.png").unlink()
    assert repair(output) is not None
    assert problems(output) == []
    places = [
        json.loads(line) for line in (output.shard_folder(0) / ".repaired.jsonl").read_text().splitlines()
    ]
    assert [(place["position"], place["quarantine"]) for place in places] == [(1, "1"), (2, "1")]
    truncate(output.shard_folder(0) / "000000000.png")
    assert repair(output) is not None
    assert problems(output) == []
    shutil.rmtree(output.private / "quarantine")
    assert problems(output) == []


def test_a_gap_that_nothing_explains_is_noted(rendered: Rendered) -> None:
    output = rendered(4)
    lines = output.metadata_file(0).read_bytes().splitlines(keepends=True)
    output.metadata_file(0).write_bytes(lines[0] + lines[3])
    for position in (1, 2):
        (output.shard_folder(0) / f"00000000{position}.png").unlink()
    assert [problem.kind for problem in problems(output)] == ["gap"]
    assert repair(output) is not None
    assert problems(output) == []


def test_a_shard_without_anything_sound_is_set_aside_whole(rendered: Rendered) -> None:
    output = rendered(8)
    for file in output.shard_folder(0).glob("*.png"):
        truncate(file)
    before = contents(output.shard_folder(0))
    done = repair(output)
    assert done is not None
    assert not output.shard_folder(0).exists()
    assert contents(output.path / done.folder / "00000") == before
    assert problems(output) == []


def test_a_shard_that_keeps_only_failures_keeps_them(rendered: Rendered) -> None:
    output = rendered(4, failed=(2,))
    failures = output.failures_file(0).read_bytes()
    for file in output.shard_folder(0).glob("*.png"):
        truncate(file)
    assert repair(output) is not None
    assert contents(output.shard_folder(0)).keys() == {".failures.jsonl", ".repaired.jsonl"}
    assert output.failures_file(0).read_bytes() == failures
    assert output.committed(0)
    assert problems(output) == []


def test_repairs_are_kept_apart_and_a_sound_output_needs_none(rendered: Rendered) -> None:
    output = rendered(4)
    assert repair(output) is None
    assert not (output.private / "quarantine").exists()
    for number in (1, 2):
        (output.shard_folder(0) / "cat.jpg").write_bytes(b"meow %d" % number)
        done = repair(output)
        assert done is not None
        assert done.folder == f".imagemill/quarantine/{number}"
        assert (output.path / done.folder / "00000" / "cat.jpg").read_bytes() == b"meow %d" % number
    assert repair(output) is None


def test_what_a_repair_cannot_mend_stays_as_it_is(rendered: Rendered) -> None:
    output = rendered(4)
    (output.path / "copies").mkdir()
    (output.path / "copies" / "fox.png").touch()
    (output.path / "job.json").write_text("{")
    before = contents(output.path)
    assert repair(output) is None
    assert contents(output.path) == before


@pytest.mark.parametrize("crash_at", range(19))
def test_a_crash_at_any_step_loses_nothing_and_the_next_repair_goes_on(
    rendered: Rendered, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = rendered(20, failed=(18,))
    every_damage(output)
    damaged = contents(output.path)
    found = check_output(output)
    steps = 0
    rename, replace = os.rename, os.replace

    def counted(step):
        def run(*arguments):
            nonlocal steps
            steps += 1
            if steps > crash_at:
                raise KeyboardInterrupt
            step(*arguments)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", counted(rename))
        patch.setattr(os, "replace", counted(replace))
        with pytest.raises(KeyboardInterrupt):
            set_aside(output, found.problems)
    repair(output)
    after = check_output(output)
    assert [problem.kind for problem in after.problems] == ["missing"]
    sound = {image.image_id for shard in found.shards for image in shard.images}
    assert {image.image_id for shard in after.shards for image in shard.images} == sound
    lines = {line for one in contents(output.path).values() for line in one.splitlines()}
    for name, data in damaged.items():
        assert set(data.splitlines()) <= lines, name


def test_an_output_that_cannot_be_written_is_one_message(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = rendered(4)
    (output.shard_folder(0) / "cat.jpg").touch()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "problems.json")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"cannot be repaired \(No space left on device"):
        repair(output)
