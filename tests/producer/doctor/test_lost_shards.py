"""Shards that were there and are gone are reported, and nothing else is."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import producer.doctor.lost_shards
from jobs.output.card import dataset_card
from jobs.output.contents import contents
from jobs.output.output import Output
from producer.doctor.checkup import Checkup, check_output
from producer.doctor.findings import Problem
from producer.doctor.lost_shards import lost_shards
from producer.doctor.quarantine import Repair, set_aside

Rendered = Callable[..., Output]

REMEDY = "restore it from a copy, or submit the manifest again, which renders what is lacking"


def lose(output: Output, *shards: int) -> None:
    for shard in shards:
        shutil.rmtree(output.shard_folder(shard))


def spoil(output: Output, shard: int) -> None:
    """No picture of the shard is sound any more."""
    for file in output.shard_folder(shard).glob("*.png"):
        file.write_bytes(file.read_bytes()[:100])


def repair(output: Output) -> Repair | None:
    return set_aside(output, check_output(output).problems)


def counts(output: Output, shards: int, finished: datetime | None = None) -> None:
    """job.json counts so many shards, as a job found them at its end."""
    report = json.loads((output.path / "job.json").read_text())
    report["output"]["shards"] = shards
    if finished is not None:
        report["times"] = {"finished": finished.strftime("%Y-%m-%dT%H:%M:%SZ")}
    (output.path / "job.json").write_text(json.dumps(report))


def lost(checkup: Checkup) -> list[Problem]:
    return [problem for problem in checkup.problems if problem.kind == "lost"]


def what_is_lost(output: Output) -> list[tuple[str, str]]:
    return [(problem.place, problem.what) for problem in lost(check_output(output))]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ((1,), "counts 6 shards, 5 are there; no shard is called 00001"),
        ((0,), "counts 6 shards, 5 are there; no shard is called 00000"),
        ((1, 3, 4), "counts 6 shards, 3 are there; no shard is called 00001, 00003–00004"),
        ((5,), "counts 6 shards, 5 are there; those after 00004 are gone"),
        ((1, 2, 3, 4, 5), "counts 6 shards, 1 is there; those after 00000 are gone"),
        ((0, 1, 2, 3, 4, 5), "counts 6 shards, 0 are there"),
    ],
)
def test_shards_that_were_counted_and_are_gone_are_reported_by_their_numbers(
    rendered: Rendered, gone: tuple[int, ...], message: str
) -> None:
    output = rendered(24)
    lose(output, *gone)
    (problem,) = lost(check_output(output))
    assert (problem.place, problem.what, problem.remedy) == ("job.json", message, REMEDY)


def test_a_lost_shard_is_reported_where_no_manifest_can_be_compared(rendered: Rendered) -> None:
    output = rendered(12)
    shutil.rmtree(output.private)
    report = json.loads((output.path / "job.json").read_text())
    report["manifest"] |= {"prompts_from": [{"file": "/gone/prompts.csv"}]}
    (output.path / "job.json").write_text(json.dumps(report))
    assert check_output(output).problems == []
    lose(output, 2)
    checkup = check_output(output)
    assert [problem.kind for problem in checkup.problems] == ["lost"]
    assert any("cannot be compared" in note for note in checkup.notes)


def test_a_tar_that_was_counted_and_is_gone_is_reported(rendered: Rendered) -> None:
    output = rendered(12, layout="webdataset")
    for ending in ("tar", "parquet"):
        (output.path / f"00001.{ending}").unlink()
    assert what_is_lost(output) == [
        ("job.json", "counts 3 shards, 2 are there; no shard is called 00001")
    ]  # fmt: skip


def test_numbers_that_no_shard_ever_had_are_no_loss(rendered: Rendered) -> None:
    """A job that was cancelled leaves gaps, and pictures in its spool keep numbers from the next one."""
    output = rendered(24)
    lose(output, 1, 3)
    counts(output, 4)
    attempt = output.spool_folder(9, "1-a")
    attempt.mkdir(parents=True)
    assert what_is_lost(output) == []
    lose(output, 4)
    assert what_is_lost(output) == [
        ("job.json", "counts 4 shards, 3 are there; no shard is called 00001, 00003–00004")
    ]  # fmt: skip


def test_shards_beyond_those_that_were_counted_are_no_loss(rendered: Rendered) -> None:
    output = rendered(24)
    counts(output, 2)
    assert check_output(output).problems == []


def test_a_job_that_finishes_while_the_output_is_examined_loses_nothing(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = rendered(12)
    aside = output.path.parent / "aside"
    output.shard_folder(2).rename(aside)
    counts(output, 2)
    listed = producer.doctor.lost_shards.remains

    def finishes(*folder: Any) -> set[int]:
        found = listed(*folder)
        if aside.exists():
            aside.rename(output.shard_folder(2))
        counts(output, 3)
        return found

    monkeypatch.setattr(producer.doctor.lost_shards, "remains", finishes)
    assert lost_shards(output).problems == []


def test_what_a_repair_set_aside_whole_is_not_lost(rendered: Rendered) -> None:
    output = rendered(12)
    spoil(output, 1)
    assert repair(output) is not None
    checkup = check_output(output)
    assert lost(checkup) == []
    assert checkup.notes == [
        "job.json: counts 3 shards, 2 are there, and in .imagemill/quarantine/1 what a repair set aside: "
        "00001",
        ".imagemill/quarantine: holds what 1 repair set aside; remove it when the next job has finished here",
    ]
    counts(output, 2)
    assert check_output(output).notes == [
        ".imagemill/quarantine: holds what 1 repair set aside; remove it at will"
    ]  # fmt: skip


def test_a_tar_that_a_repair_set_aside_whole_is_not_lost(rendered: Rendered) -> None:
    output = rendered(12, layout="webdataset")
    (output.path / "00001.tar").write_bytes(b"no tar")
    assert repair(output) is not None
    assert not (output.path / "00001.tar").exists()
    assert lost(check_output(output)) == []


def test_what_is_lost_beside_what_a_repair_set_aside_is_reported(rendered: Rendered) -> None:
    output = rendered(24)
    spoil(output, 1)
    assert repair(output) is not None
    lose(output, 3)
    assert what_is_lost(output) == [
        (
            "job.json",
            "counts 6 shards, 4 are there, and in .imagemill/quarantine/1 what a repair set aside: 00001; "
            "no shard is called 00003",
        )
    ]


def test_a_repair_before_the_last_job_explains_nothing(rendered: Rendered) -> None:
    """What it set aside was gone when the shards were counted."""
    output = rendered(24)
    spoil(output, 1)
    done = repair(output)
    assert done is not None
    counts(output, 5, datetime.now(UTC))
    os.utime(output.path / done.folder / "problems.json", (1.7e9, 1.7e9))
    assert check_output(output).problems[1:] == []
    lose(output, 3)
    assert what_is_lost(output) == [
        ("job.json", "counts 5 shards, 4 are there; no shard is called 00001, 00003")
    ]  # fmt: skip


def test_a_repair_after_the_last_job_explains_what_it_set_aside(rendered: Rendered) -> None:
    output = rendered(24)
    counts(output, 6, datetime.now(UTC))
    spoil(output, 1)
    assert repair(output) is not None
    assert what_is_lost(output) == []


def test_a_shard_that_is_reported_as_damaged_is_not_reported_as_lost_too(rendered: Rendered) -> None:
    output = rendered(12)
    output.metadata_file(1).unlink()
    assert [problem.kind for problem in check_output(output).problems] == ["folder", "missing"]


def test_an_emptied_folder_does_not_stand_for_a_lost_shard(rendered: Rendered) -> None:
    output = rendered(12)
    lose(output, 1)
    output.shard_folder(9).mkdir()
    assert [problem.kind for problem in check_output(output).problems] == ["folder", "lost", "missing"]
    assert repair(output) is not None
    assert [problem.kind for problem in check_output(output).problems] == ["lost", "missing"]


@pytest.mark.parametrize("finished", [None, 7, "yesterday", ["2026"], "9999-99-99T00:00:00Z"])
def test_a_time_that_is_none_explains_what_any_repair_set_aside(rendered: Rendered, finished: object) -> None:
    output = rendered(12)
    report = json.loads((output.path / "job.json").read_text()) | {"times": {"finished": finished}}
    (output.path / "job.json").write_text(json.dumps(report))
    spoil(output, 1)
    assert repair(output) is not None
    assert what_is_lost(output) == []


def exported(output: Output, *, preview: bool = False) -> Output:
    """Nothing but the shards and their card, as `imagemill export` leaves them."""
    card = dataset_card(contents(output), layout="files", preview=preview)
    (output.path / "README.md").write_text(card)
    (output.path / "job.json").unlink()
    shutil.rmtree(output.private)
    return output


def test_a_gap_in_an_exports_numbers_is_a_loss(rendered: Rendered) -> None:
    output = exported(rendered(24))
    checkup = check_output(output)
    assert checkup.problems == []
    assert checkup.notes == [
        "README.md: is an export's: whether shards are gone after the last cannot be known",
        "no manifest is kept in .imagemill/jobs: what is missing cannot be known",
    ]
    lose(output, 0, 2, 3)
    (problem,) = check_output(output).problems
    assert (problem.kind, problem.place) == ("lost", "README.md")
    assert problem.what == (
        "is an export's, whose shards are numbered without a gap: no shard is called 00000, 00002–00003"
    )
    assert problem.remedy == "restore it from a copy, or export the output again"


@pytest.mark.parametrize("card", ["a job's", "a person's", "none"])
def test_what_may_be_no_export_may_have_gaps(rendered: Rendered, card: str) -> None:
    output = exported(rendered(24), preview=card == "a job's")
    if card == "a person's":
        (output.path / "README.md").write_text("# Foxes\n")
    elif card == "none":
        (output.path / "README.md").unlink()
    lose(output, 2)
    checkup = check_output(output)
    assert checkup.problems == []
    assert "job.json: not there: no job has finished here" in checkup.notes


def test_an_export_that_is_repaired_has_lost_nothing(rendered: Rendered) -> None:
    output = exported(rendered(24))
    spoil(output, 2)
    assert repair(output) is not None
    assert check_output(output).problems == []


def test_a_shard_of_a_large_number_is_no_million_gaps(rendered: Rendered) -> None:
    output = rendered(8)
    number = 999_999_999
    output.shard_folder(number).mkdir()
    (output.shard_folder(number) / ".failures.jsonl").touch()
    counts(output, 9)
    assert what_is_lost(output) == [
        ("job.json", "counts 9 shards, 3 are there; no shard is called 00002–999999998")
    ]  # fmt: skip


def test_of_many_gaps_the_first_are_named(rendered: Rendered, tmp_path: Path) -> None:
    output = rendered(100)
    lose(output, *range(1, 25, 2))
    ((_place, what),) = what_is_lost(output)
    assert what.endswith("00017, 00019, …")
