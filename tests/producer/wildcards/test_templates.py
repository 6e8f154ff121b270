"""Templates are counted before they are made; draws follow from the line and the options alone."""

from __future__ import annotations

import time
from collections import Counter
from math import sqrt
from pathlib import Path

import pytest

from producer.wildcards.choices import MOST
from producer.wildcards.templates import Drawing, Templates

PINNED = ["7 3", "7 0", "6 2", "7 4"]
TEN = "{" + "|".join(map(str, range(10))) + "}"


def _templates(
    folder: Path, sample: int | None = None, *, job: str = "cats", sample_seed: int = 0
) -> Templates:
    return Templates(Drawing(job, folder, sample, sample_seed))


def _write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("a {red|blue} {cat|dog}", ["a red cat", "a red dog", "a blue cat", "a blue dog"]),
        ("{a|{b|c}} d", ["a d", "b d", "c d"]),
        ("{2$$ and $$a|b|c}", ["a and b", "a and c", "b and a", "b and c", "c and a", "c and b"]),
        ("{0-1$$a|b}!", ["!", "a!", "b!"]),
        ("{0.5::a|0::b|2::c}", ["a", "c"]),
        ("{a|a|b}", ["a", "b"]),
        ("__pet__", ["cat", "dog"]),
        ("{2$$-$$__pet__}", ["cat-dog", "dog-cat"]),
        ("__wild__", ["red fox", "blue fox", "cat", "dog"]),
        ("{}|{a|}", ["|a", "|"]),
        ("x # remark", ["x "]),
        ("(a:1.2) alone", ["(a:1.2) alone"]),
    ],
)
def test_every_combination_is_given_once_in_order(tmp_path: Path, template: str, texts: list[str]) -> None:
    _write(tmp_path, pet="cat\ndog\n", wild="{red|blue} fox\n{cat}\n__pet__\n")
    assert list(_templates(tmp_path).prompts(template)) == texts


@pytest.mark.parametrize(
    "template",
    ["{a|b|c}{1-3$$x|y|z}", "{1-2$${a|b}|c|{d|e|f}}", "{0-2$$__three__} {a|{b|c}}", "{3$$__three__}"],
)
def test_combinations_are_counted_as_they_are_made(tmp_path: Path, template: str) -> None:
    _write(tmp_path, three="1\n2\n{3|4}\n")
    templates = _templates(tmp_path)
    assert templates.choices(template).size.combinations == len(list(templates.prompts(template)))


def test_a_thousand_million_combinations_are_counted_before_any_is_made(tmp_path: Path) -> None:
    templates = _templates(tmp_path)
    begun = time.process_time()
    trouble = templates.trouble(TEN * 9)
    assert time.process_time() - begun < 0.1
    assert trouble == (
        "stands for 1,000,000,000 prompts, and 100,000 is the most: write `sample: N` in the manifest to "
        "draw N of them"
    )
    assert _templates(tmp_path, 3).trouble(TEN * 9) is None


def test_wildcards_that_multiply_beyond_all_bounds_are_refused_in_a_moment(tmp_path: Path) -> None:
    for depth in range(19):
        _write(tmp_path, **{f"w{depth}": f"__w{depth + 1}__ __w{depth + 1}__\nx\n"})
    _write(tmp_path, w19="a\nb\n")
    begun = time.process_time()
    trouble = _templates(tmp_path, 1).trouble("__w0__")
    assert time.process_time() - begun < 1
    assert trouble is not None and "gives prompts of more than 20,000 characters" in trouble
    assert _templates(tmp_path).choices("__w11__").size.combinations == MOST
    empty = "{|}" * 1001
    assert (
        _templates(tmp_path, 1).trouble(empty)
        == "chooses at more than 1,000 places: shorten it or its wildcards"
    )


@pytest.mark.parametrize(
    ("files", "template", "what"),
    [
        (
            {"a": "__b__\n", "b": "x\n__a__\n"},
            "__a__",
            "__a__ -> __b__ -> __a__: a wildcard cannot stand for itself",
        ),
        ({"a": "x\n{y|\n"}, "__a__", "{0}/a.txt:2: column 1: cannot be read from"),
        (
            {"a": "x\n__bb__\n", "b": "y"},
            "__a__",
            "{0}/a.txt:2: __bb__: no such wildcard in {0}: did you mean __b__?",
        ),
        ({"a": "0::x\n"}, "__a__", "has no option with a weight above 0: give one"),
        ({}, "{3$$a|b}", "takes 3 of 2: take fewer, or add some"),
        ({}, "#5 fox", "stands for no words: # begins a comment"),
        (
            {"a": "\n".join(map(str, range(101)))},
            "{1-101$$__a__}",
            "takes up to 101 options, and 100 is the most",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, files: dict[str, str], template: str, what: str
) -> None:
    _write(tmp_path, **files)
    trouble = _templates(tmp_path, 2).trouble(template)
    assert trouble is not None and trouble.startswith(what.format(tmp_path))


def test_a_chain_of_wildcards_ends(tmp_path: Path) -> None:
    for depth in range(25):
        _write(tmp_path, **{f"w{depth}": f"__w{depth + 1}__\n"})
    _write(tmp_path, w25="a\n")
    trouble = _templates(tmp_path).trouble("__w0__")
    assert trouble is not None and "wildcards are nested deeper than 20" in trouble


def test_draws_are_the_same_everywhere_and_other_ones_for_another_job_seed_or_line(tmp_path: Path) -> None:
    template = f"{TEN} {TEN}"
    assert list(_templates(tmp_path, 4).prompts(template)) == PINNED
    for other in (
        _templates(tmp_path, 4, job="dogs").prompts(template),
        _templates(tmp_path, 4, sample_seed=1).prompts(template),
        _templates(tmp_path, 4).prompts(f"{TEN}  {TEN}"),
    ):
        assert list(other) != PINNED


def test_equal_lines_share_their_draws(tmp_path: Path) -> None:
    once, twice = _templates(tmp_path, 1500), _templates(tmp_path, 750)
    template = f"{TEN}{TEN}{TEN}"
    assert list(once.prompts(template)) == [*twice.prompts(template), *twice.prompts(template)]


def test_a_longer_sample_begins_with_the_shorter_one(tmp_path: Path) -> None:
    template = f"{TEN}{TEN}"
    assert list(_templates(tmp_path, 2000).prompts(template))[:7] == list(
        _templates(tmp_path, 7).prompts(template)
    )


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        ("a __color__ fox and __color__", "red\nblue\n", "red\npink\nblue\n"),
        ("a __color__ fox and __color__", "red\n", "pink\nred\n"),
        ("a {2$$ and $$__color__} fox in {a|b}", "red\nblue\ngreen\n", "red\nblue\ngreen\npink\n"),
        ("__scene__ at {dawn|dusk}", "red\n2::blue\n", "red\n2::blue\n1.5::pink\n"),
        ("{1-2$$__scene__}", "red\n{blue|teal} __place__\n", "pink\nred\n{blue|teal} __place__\n"),
    ],
)
def test_an_option_that_is_added_changes_only_the_draws_that_take_it(
    tmp_path: Path, template: str, before: str, after: str
) -> None:
    _write(
        tmp_path, color=before, place="hill\nlake\n", scene="a {big|small} __color__ {cat|dog}\n__color__\n"
    )
    drawn = list(_templates(tmp_path, 1000).prompts(template))
    _write(tmp_path, color=after)
    again = list(_templates(tmp_path, 1000).prompts(template))
    changed = [new for old, new in zip(drawn, again, strict=True) if old != new]
    assert all("pink" in one for one in changed)
    assert 50 < len(changed) == sum("pink" in one for one in again)


@pytest.mark.parametrize(
    ("template", "shares"),
    [
        ("{a|b|c|d}", {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}),
        ("{3::a|b}", {"a": 0.75, "b": 0.25}),
        ("{a|a|b}", {"a": 2 / 3, "b": 1 / 3}),
        ("{2$$-$$a|b|c}", {f"{x}-{y}": 1 / 6 for x in "abc" for y in "abc" if x != y}),
        ("{0-1$$a|b}", {"": 0.5, "a": 0.25, "b": 0.25}),
        ("{a|b}{a|b}", {"aa": 0.25, "ab": 0.25, "ba": 0.25, "bb": 0.25}),
        ("{{a|b}|c}{a|b}", {"aa": 0.125, "ab": 0.125, "ba": 0.125, "bb": 0.125, "ca": 0.25, "cb": 0.25}),
        ("__w__", {"x": 0.2, "y": 0.8}),
    ],
)
def test_each_option_has_the_share_of_its_weight(
    tmp_path: Path, template: str, shares: dict[str, float]
) -> None:
    _write(tmp_path, w="0.5::x\n2::y\n")
    draws = 40_000
    counts = Counter(_templates(tmp_path, draws).prompts(template))
    assert counts.keys() == shares.keys()
    for text, share in shares.items():
        assert abs(counts[text] / draws - share) < 5 * sqrt(share * (1 - share) / draws)
