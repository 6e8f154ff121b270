"""Faults of every family: no image is lost, none is counted twice.

The faults hit one job after the other (`soak.Soak`), whose verdicts come when they end: a fault that costs an
image turns the test red in which its job ends, with the names of all that hit it. `pytest -m ""` lets every
fault there is hit once, and some again in the order of the seed; so does `make soak`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fault import Fault
from tests.faults.faults import FAULTS, USUAL
from tests.faults.soak import Soak, schedule
from tests.faults.soaks import AGAIN, check_all_once, check_nothing_wrong, each

SEED = 7


def test_the_documents_say_how_many_kinds_there_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    assert f"There are {len({fault.name for fault in FAULTS})} kinds of faults." in page.read_text()


@pytest.mark.parametrize("fault", each(FAULTS, USUAL))
def test_work_goes_on_after(soak: Soak, fault: Fault) -> None:
    soak.strike(fault)
    check_nothing_wrong(soak)


@pytest.mark.soak
def test_work_goes_on_after_faults_in_any_order(soak: Soak) -> None:
    for fault in schedule(SEED, AGAIN):
        soak.strike(fault)
        check_nothing_wrong(soak)


def test_all_images_under_all_these_faults_are_there_once_and_counted_once(soak: Soak) -> None:
    check_all_once(soak)
