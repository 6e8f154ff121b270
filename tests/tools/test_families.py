"""Families of pipelines share forwards as docs/families.md says."""

from __future__ import annotations

import pytest

from jobs.pipelines.pipelines import admitted
from tests.tiny.families import FAMILIES
from tests.tiny.family_params import family_params
from tools.families import END, LISTS, MARK, NOT_TRIED, PAGE, measure

MOST_DIFFERENCE = 1e-5


def stated() -> tuple[dict[str, str], list[str]]:
    """What the page says: the list of each family, and the classes that were not tried."""
    table = PAGE.read_text("utf-8").partition(MARK)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    lists = {name: cell.partition(":")[0] for name, cell, *_figures in rows}
    return lists, table.partition(NOT_TRIED)[2].strip(" .\n").split(", ")


def test_the_page_names_every_class_that_is_rendered_in_a_list_or_as_not_tried() -> None:
    lists, not_tried = stated()
    assert lists.keys() == FAMILIES.keys()
    assert {*lists.values()} <= {*LISTS.values()}
    tried = {FAMILIES[name].class_name for name in lists}
    assert tried.isdisjoint(not_tried)
    assert {*tried, *not_tried} == {*admitted()}


@pytest.mark.parametrize("name", family_params(FAMILIES))
def test_images_of_a_family_share_forwards_as_the_page_says_and_equal_the_plain_pipelines(name: str) -> None:
    measured = measure(FAMILIES[name], images=4, alone=1)
    assert LISTS[measured.batching] == stated()[0][name], measured.reason
    assert measured.same or measured.batching == "fast"
    assert measured.difference <= MOST_DIFFERENCE or measured.amplifies
    assert measured.together <= measured.one_by_one
    assert measured.failing == ()
