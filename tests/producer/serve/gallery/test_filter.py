"""What a filter takes: the same of tables and of records, in pieces that take a bounded time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from serve_output import make_output

from jobs.output.job_files import JobFiles
from jobs.output.output import Output
from producer.manifest.manifest import Manifest
from producer.manifest.submitted import SubmittedManifest
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
    ({"scheduler": "Euler"}, [1]),
    ({"column": "scheduler", "value": "DDIM"}, [3]),
    ({"seed": "7"}, [0, 2]),
    ({"seed": "7", "text": "fox"}, [0]),
    ({"column": "kind", "value": "a"}, [0, 3]),
    ({"column": "kind", "value": ""}, [2]),
    ({"column": "weight", "value": "2"}, [1, 2]),
    ({"column": "weight", "value": "1.5"}, [0]),
    ({"column": "syntax", "value": "plain"}, [0, 1, 2, 3]),
    ({"column": "height", "value": "64"}, [0, 1, 2, 3]),
    ({"column": "text", "value": "the last fox"}, []),
    ({"column": "text", "value": "a blue hare"}, [1]),
    ({"column": "prompt", "value": "a blue hare"}, [1]),
    ({"column": "file_name", "value": "000000002.png"}, [2]),
    ({"column": "weight", "value": "2.0"}, [1, 2]),
    ({"column": "height", "value": "64.0"}, [0, 1, 2, 3]),
    ({"failed": "1"}, [4]),
    ({"failed": "1", "text": "LAST"}, [4]),
    ({"failed": "1", "column": "text", "value": "the last fox"}, [4]),
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


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_search_backwards_stops_when_its_time_is_over_and_goes_on_where_it_was(
    layout: str, rendered: Rendered, gallery: Look
) -> None:
    looked = gallery(rendered(16, layout=layout))
    place: Cursor | None = Cursor(3, 3)
    found, pieces = [], 0
    while place is not None:
        piece = looked.before(place, Filter(text="fox 5"), budget=0)
        found += [(*one.place,) for one in piece.lines]
        assert piece.next is None or piece.next < place
        pieces, place = pieces + 1, piece.next
    assert found == [(1, 1)]
    assert pieces > 3


@pytest.mark.parametrize(("budget", "wanted"), [(0.0, range(140, 160)), (60.0, [2])])
def test_a_large_shard_of_records_is_looked_through_backwards_in_pieces(
    budget: float, wanted: Collection[int], gallery: Look, tmp_path: Path
) -> None:
    output = make_output(tmp_path / "large", 2_500, 2_500, {4: "the hare"})
    for file in output.path.glob("*.parquet"):
        file.unlink()
    looked = gallery(output)
    place: Cursor | None = Cursor(0, 2_400)
    found, pieces = [], 0
    while place is not None:
        piece = looked.before(place, Filter(text="hare"), count=1, budget=budget)
        found += [(*one.place,) for one in piece.lines]
        pieces, place = pieces + 1, piece.next
    assert found == [(0, 4)]
    assert pieces in wanted  # of 16 records each; or one to the hare, and one to the beginning


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"seed": "x"}, "seed = x: must be a whole number, 0 to"),
        ({"seed": "-1"}, "seed = -1: must be a whole number"),
        ({"seed": "9" * 99}, "must be a whole number"),
        ({"flagged": "maybe"}, "flagged = maybe: must be 1, or be left out"),
        ({"failed": "true"}, "failed = true: must be 1"),
        ({"flagged": "1", "failed": "1"}, "flagged and failed exclude each other"),
        ({"scheduler": "Eulr"}, "scheduler = Eulr: must be one of LMS, .*Euler"),
        (
            {"sheduler": "Euler"},
            "sheduler: is no condition; there are text, scheduler, seed, flagged, failed",
        ),
        ({"column": "seed", "value": "abc"}, "seed = abc: must be a whole number"),
        ({"column": "height", "value": "tall"}, "height = tall: must be a whole number, .* multiple of 8"),
        ({"column": "height", "value": ""}, "height = : must be a whole number"),
        ({"column": "guidance_scale", "value": "7,5"}, "guidance_scale = 7,5: must be a number, 0 to 100"),
        ({"column": "precision", "value": "fp33"}, "precision = fp33: must be auto, bf16"),
        ({"column": "rendered_rows", "value": "many"}, "rendered_rows = many: must be a whole number"),
        ({"text": "x" * 1001}, "text: has more than 1,000 characters"),
        ({"value": "x"}, "column: is missing"),
    ],
)
def test_what_is_no_condition_is_refused(query: Mapping[str, str], said: str) -> None:
    with pytest.raises(WrongFilter, match=said):
        Filter.of_query(query)


@pytest.mark.parametrize("name", ["euler", "K_EULER", "EulerDiscreteScheduler"])
def test_a_scheduler_is_found_by_any_of_its_names(name: str) -> None:
    assert Filter.of_query({"scheduler": name}).scheduler == "Euler"
    assert Filter.of_query({"column": "scheduler", "value": name}).value == "Euler"


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_column_that_no_image_has_is_refused_with_those_that_there_are(
    layout: str, rendered: Rendered, gallery: Look
) -> None:
    looked = gallery(rendered(5, layout=layout, prompts=[*PROMPTS[:4], "plain"]))
    for name, like in (("knd", "kind"), ("caption", ""), ("sed", "seed"), ("none of ours", "")):
        with pytest.raises(WrongFilter) as refused:
            looked.known.check(Filter(column=name, value="x"))
        said = str(refused.value)
        assert said.startswith(f"column = {name}: no image here has it")
        assert f"(the nearest is {like})" in said or not like
        assert "there are kind, weight, prompt, negative_prompt" in said
    for name in ("kind", "weight", "seed", "text", "flagged", "rendered_device"):
        assert looked.known.check(Filter(column=name, value="1")) == ""


@pytest.mark.parametrize("layout", ["files", "webdataset"])
def test_a_value_that_a_users_column_does_not_hold_is_told(
    layout: str, rendered: Rendered, gallery: Look
) -> None:
    columns = [
        {"n": 1, "x": 1.5, "is": True, "t": "7", "gone": None},
        {"n": 2, "x": 2, "is": False, "t": "8"},
    ]
    looked = gallery(rendered(2, layout=layout, prompts=[{"prompt": "a", "columns": one} for one in columns]))
    for name, wrong, words in (
        ("n", "1.5", "a whole number"),
        ("n", "abc", "a whole number"),
        ("x", "1,5", "a number"),
        ("is", "yes", "true or false"),
    ):
        said = looked.known.check(Filter(column=name, value=wrong))
        assert said == f"{name} = {wrong}: {name} is {words} in the first shard and in the last one"
    for name, value in (("n", "2.0"), ("x", "1e3"), ("is", "true"), ("t", "abc"), ("gone", "x"), ("n", "")):
        assert looked.known.check(Filter(column=name, value=value)) == "", name


def test_a_column_of_a_job_in_the_middle_is_known_by_its_manifest(rendered: Rendered, gallery: Look) -> None:
    output = rendered(12)
    job = {"name": "more", "model": "instant", "revision": "instant-1", "output": output.label}
    prompts = [{"prompt": "a hare", "columns": {"mine": "x"}}]
    manifest = Manifest.from_json(job | {"prompts": prompts})
    JobFiles(output, "more-1").write_manifest(SubmittedManifest(manifest).to_json())
    assert gallery(output).known.check(Filter(column="mine", value="x")) == ""
    with pytest.raises(WrongFilter, match=r"the nearest is mine\); there are mine, prompt"):
        gallery(output).known.check(Filter(column="mein", value="x"))
    output.store.replace(JobFiles(output, "odd-1").manifest, b"{")
    said = gallery(output).known.check(Filter(column="mein", value="x"))
    assert said.startswith("column = mein: no image at either end of the output has it (the nearest is mine)")


def test_a_filter_goes_into_an_address_and_comes_back() -> None:
    queries: list[dict[str, Any]] = [
        query for query, _ in CASES if query.get("value") != "" and not query.get("value", "").endswith(".0")
    ]
    assert [Filter.of_query(query).query() for query in queries] == queries
    assert Filter.of_query({"text": "", "seed": " "}).is_empty
    assert Cursor(0, 9).next == (0, 10)
