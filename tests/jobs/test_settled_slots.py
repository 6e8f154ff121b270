"""The slots of an output's pictures, which outlive Redis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import OutputError
from jobs.ledger.job import SlotsKey
from jobs.output.output import Output
from jobs.settled_slots import keep_slots, settled_slots, write_slots

SIZE = SlotsKey("card", "bf16", "sha256:1", 512, 768)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(tmp_path / "out")
    output.prepare()
    return output


def test_the_first_slots_of_a_kind_and_size_stay(output: Output) -> None:
    assert settled_slots(output, SIZE) is None
    keep_slots(output, SIZE, 8)
    keep_slots(output, SIZE, 32)
    assert settled_slots(output, SIZE) == 8


@pytest.mark.parametrize(
    "other", [{"device": "cpu"}, {"precision": "fp32"}, {"revision": "2"}, {"height": 64}, {"width": 64}]
)
def test_what_bytes_and_speed_depend_on_has_slots_of_its_own(output: Output, other: dict[str, str]) -> None:
    another = replace(SIZE, **other)  # type: ignore[arg-type]
    keep_slots(output, SIZE, 8)
    assert settled_slots(output, another) is None
    keep_slots(output, another, 32)
    assert (settled_slots(output, SIZE), settled_slots(output, another)) == (8, 32)


def test_slots_that_are_given_take_the_place_of_what_is_there(output: Output) -> None:
    another = replace(SIZE, width=64)
    keep_slots(output, SIZE, 8)
    write_slots(output, {another: 16})
    assert (settled_slots(output, SIZE), settled_slots(output, another)) == (None, 16)


def test_a_file_that_may_not_be_read_is_reported_with_the_remedy(output: Output) -> None:
    (output.private / "rows.json").mkdir()
    with pytest.raises(OutputError, match=r"rows\.json cannot be read .*: make it"):
        settled_slots(output, SIZE)
