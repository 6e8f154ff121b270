"""What a filter takes: the same of tables and of records, in pieces that take a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jobs.output.output import Output
from producer.serve.gallery.filter import Filter, WrongFilter
from producer.serve.gallery.gallery_output import GalleryOutput
from producer.serve.gallery.line import START, Cursor

Rendered = Callable[..., Output]
Look = Callable[[Output], GalleryOutput]
PROMPTS = [
    {"prompt": "A red FOX", "seed": 7, "columns": {"kind": "a", "weight": 1.5}},
    {"prompt": "a blue hare", "scheduler": "Euler", "seed": 8, "columns": {"kind": "b", "weight": 2.0}},
    {"prompt": "été en forêt", "seed": 7, "columns": {"kind": None, "weight": 2.0}},
    {"prompt": "<b>100%</b> fox_", "scheduler": "DDIM", "seed": 9, "columns": {"kind": "a", "weight": 3.0}},
    {"prompt": "the last fox", "seed": 10, "strength": None, "columns": {"kind": "c", "weight": 1.5}},
]
CASES: list[tuple[dict[str, str], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"text": "fox"}, [0, 3]),
    ({"text": "FORÊT"}, [2]),
    ({"text": "<b>"}, [3]),
    ({"text": "100%"}, [3]),
    ({"text": "wolf"}, []),
    ({"scheduler": "euler"}, [1]),
    ({"seed": "7"}, [0, 2]),
    ({"seed": "7", "text": "fox"}, [0]),
    ({"column": "kind", "value": "a"}, [0, 3]),
    ({"column": "kind", "value": ""}, [2]),
    ({"column": "weight", "value": "2"}, [1, 2]),
    ({"column": "weight", "value": "1.5"}, [0]),
    ({"column": "syntax", "value": "plain"}, [0, 1, 2, 3]),
    ({"column": "height", "value": "64"}, [0, 1, 2, 3]),
    ({"column": "none of ours", "value": "x"}, []),
    ({"column": "caption", "value": "x"}, []),
    ({"failed": "1"}, [4]),
    ({"failed": "1", "text": "LAST"}, [4]),
    ({"failed": "1", "column": "kind", "value": "c"}, [4]),
    ({"failed": "1", "seed": "7"}, []),
    ({"flagged": "1"}, []),
]


@pytest.mark.parametrize("form", ["files", "webdataset", "webdataset without parquet"])
def test_every_layout_finds_the_same(form: str, rendered: Rendered, gallery: Look) -> None:
    prompts = [{key: value for key, value in one.items() if key != "strength"} for one in PROMPTS]
    output = rendered(5, failed=(4,), layout=form.split(maxsplit=1)[0], prompts=prompts)
    if form.endswith("parquet"):
        for file in output.path.glob("*.parquet"):
            file.unlink()
    looked = gallery(output)
    for query, wanted in CASES:
        found = looked.page(taken=Filter.of_query(query), budget=60).lines
        assert [4 * one.place.shard + one.place.position for one in found] == wanted, query


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_what_failed_says_why_and_how_to_render_it(layout: str, rendered: Rendered, gallery: Look) -> None:
    [line] = gallery(rendered(4, failed=(2,), layout=layout)).page(taken=Filter(failed=True)).lines
    assert (line.failed, line.reason, line.command) == (True, "black", "render it")


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_search_stops_when_its_time_is_over_and_goes_on_where_it_was(
    layout: str, rendered: Rendered, gallery: Look
) -> None:
    looked = gallery(rendered(16, layout=layout))
    taken, place, found, pieces = Filter(text="fox 13"), START, [], 0
    while place is not None:
        piece = looked.page(place, taken, budget=0)
        found += [(*one.place,) for one in piece.lines]
        assert piece.next is None or piece.next > place
        pieces, place = pieces + 1, piece.next  # type: ignore[assignment]
        assert pieces < 100
    assert found == [(3, 1)]
    assert pieces > 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"seed": "x"}, "seed = x: must be a whole number"),
        ({"seed": "-1"}, "seed = -1: must be a whole number"),
        ({"seed": "9" * 99}, "must be a whole number"),
        ({"text": "x" * 1001}, "text: has more than 1,000 characters"),
        ({"value": "x"}, "column: is missing"),
    ],
)
def test_what_is_no_condition_is_refused(query: Mapping[str, str], said: str) -> None:
    with pytest.raises(WrongFilter, match=said):
        Filter.of_query(query)


def test_a_filter_goes_into_an_address_and_comes_back() -> None:
    queries: list[dict[str, Any]] = [query for query, _ in CASES if query.get("value") != ""]
    assert [Filter.of_query(query).query() for query in queries] == queries
    assert Filter.of_query({"text": "", "seed": " "}).is_empty
    assert Cursor(0, 9).next == (0, 10)
