"""Lines that ask for one picture: each that says something else is a line, and ids used twice are said."""

from __future__ import annotations

from typing import Any

from jobs.entry import Entry
from jobs.models.models import resolve_model
from producer.manifest.manifest import Manifest
from producer.requests.expand import EqualLine, Repeats, identify, sample

MODEL = resolve_model("shapes-random")


def manifest(prompts: list[Any], **keys: Any) -> Manifest:
    return Manifest.from_json({"name": "cats", "model": "shapes-random", "prompts": prompts, **keys})


def line(prompt: str, id: str | None = None, **columns: Any) -> dict[str, Any]:
    return {"prompt": prompt, "seed": 7, "id": id, "columns": columns or None}


def kinds(prompts: list[Any], **keys: Any) -> tuple[list[tuple[str | None, bool]], int]:
    """The id of each line in order, and whether it shares a picture; how many were equal in all they say."""
    doubled: list[Entry] = []
    found = identify(manifest(prompts, **keys), MODEL, doubled.append, repeats=Repeats())
    return [(keyed[1].id, isinstance(keyed, EqualLine)) for keyed in found], len(doubled)


def test_a_line_with_another_id_or_other_columns_is_a_line_and_an_equal_one_is_none() -> None:
    lines = [
        line("a", "1"),
        line("a", "2"),
        line("a", "1"),
        line("b"),
        line("b"),
        line("b", n=1),
        line("b", n=2),
    ]
    assert kinds([*lines, line("b", n=1), line("a"), line("a")]) == (
        [("1", False), ("2", True), (None, False), (None, True), (None, True), (None, True)],
        4,
    )


def test_derived_seeds_give_each_line_a_picture_of_its_own() -> None:
    assert kinds([{"prompt": "a", "id": "1"}, {"prompt": "a", "id": "2"}]) == (
        [("1", False), ("2", False)],
        0,
    )


def test_a_derived_seed_that_a_line_gave_before_makes_a_line_of_the_same_picture() -> None:
    [first] = identify(manifest([{"prompt": "a"}]), MODEL)
    given = {"prompt": "a", "seed": first[1].seed, "id": "given"}
    assert kinds([given, {"prompt": "a", "id": "derived"}]) == ([("given", False), ("derived", True)], 0)
    assert kinds([given, "a", "a"]) == ([("given", False), (None, True), (None, False)], 0)


def test_without_asking_for_lines_every_picture_comes_once_as_before() -> None:
    doubled: list[Entry] = []
    found = list(identify(manifest([line("a", "1"), line("a", "2")]), MODEL, doubled.append))
    assert [entry.id for _, entry in found] == ["1"]
    assert [entry.id for entry in doubled] == ["2"]


def test_an_id_on_two_prompts_is_counted_and_named() -> None:
    repeats = Repeats()
    lines = [line("a", "1"), line("a", "1", n=1), line("b", "2"), line("c", "2"), line("d", "2"), line("e")]
    assert len(list(identify(manifest(lines), MODEL, repeats=repeats))) == 6
    assert (repeats.ids, repeats.first_ids) == (2, ["2"])


def test_a_sample_draws_a_picture_before_the_lines_that_share_it() -> None:
    found = list(identify(manifest([line("a", str(n)) for n in range(9)]), MODEL, repeats=Repeats()))
    drawn = sample(found, 4, "cats")
    assert [type(keyed) is EqualLine for keyed in drawn] == [False, True, True, True]
