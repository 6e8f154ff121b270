"""Faults of every family: no image is lost, none is counted twice.

The faults hit one job after the other (`soak.Soak`), whose verdicts come when they end: a fault that costs an
image turns the test red in which its job ends, with the names of all that hit it. `pytest -m ""` lets every
fault there is hit once, and some again in the order of the seed; so does `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS, USUAL, Fault
from tests.faults.field import Field
from tests.faults.soak import Soak, schedule

SEED = 7
AGAIN = 20
"""Faults drawn by the seed after each kind was there once."""
IMAGES = 100
"""For each fault."""


class Soaks:
    """The soak on a field; a fresh field has a soak of its own."""

    def __init__(self, faults: int) -> None:
        self._faults = faults
        self._field: Field | None = None
        self._soak: Soak | None = None

    def on(self, field: Field) -> Soak:
        """Jobs that last for all faults of this file."""
        if self._soak is None or self._field is not field:
            self._field, self._soak = field, Soak(field, IMAGES * self._faults, self._faults, print)
        return self._soak


@pytest.fixture(scope="module")
def soaks(request: pytest.FixtureRequest) -> Soaks:
    here = [item for item in request.session.items if item.path == request.path]
    in_any_order = any("any_order" in item.name for item in here)
    return Soaks(len(here) + AGAIN * in_any_order)


@pytest.fixture
def soak(soaks: Soaks, field: Field) -> Iterator[Soak]:
    return soaks.on(field)


def check_nothing_wrong(soak: Soak) -> None:
    problems, soak.verdict.problems = soak.verdict.problems, []
    assert problems == []


def test_the_documents_say_how_many_kinds_there_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    assert f"There are {len({fault.name for fault in FAULTS})} kinds of faults." in page.read_text()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in USUAL else [pytest.mark.soak])
        for fault in FAULTS
    ],
)
def test_work_goes_on_after(soak: Soak, fault: Fault) -> None:
    soak.strike(fault)
    check_nothing_wrong(soak)


@pytest.mark.soak
def test_work_goes_on_after_faults_in_any_order(soak: Soak) -> None:
    for fault in schedule(SEED, AGAIN):
        soak.strike(fault)
        check_nothing_wrong(soak)


def test_all_images_under_all_these_faults_are_there_once_and_counted_once(soak: Soak) -> None:
    verdict = soak.end()
    assert verdict.problems == []
    assert verdict.images == verdict.files == verdict.bits == verdict.counted >= soak.images
    assert (verdict.lost, verdict.doubled, verdict.finish_events) == (0, 0, verdict.runs)
