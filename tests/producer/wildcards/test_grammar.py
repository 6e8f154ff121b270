"""Templates are read as dynamicprompts reads them, and what is not supported is refused by name."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import ManifestError
from producer.wildcards.grammar import (
    Alternatives,
    Option,
    Parts,
    Tree,
    Wildcard,
    Words,
    canonical,
    parse,
    parsed_by_dynamicprompts,
    parsed_here,
)
from producer.wildcards.line_template import has_syntax

_WORDS = st.lists(
    st.sampled_from(
        [
            "x",
            "y z",
            " ",
            "__x__",
            "__a/*__",
            "|",
            "2::",
            "0.5::",
            "b ",
            "é",
            ",",
            "_",
            ":",
            "\n",
            "(b:1.2)",
            "[c]",
        ]
    )
).map("".join)
_BRACES = st.tuples(st.sampled_from(["", "2$$", "1-2$$ and $$", "2$$|$$", "3-1$$"]), _WORDS).map(
    lambda parts: f"{{{parts[0]}{parts[1]}}}"
)
_MARKS = st.sampled_from(["{", "}", "|", "__", "::", "2$$", "$$", "-", "*", "~", "."])
_TEMPLATES = st.lists(st.one_of(_WORDS, _BRACES, _MARKS), max_size=6).map("".join)


def _plain(tree: Tree) -> list[object]:
    """The tree with neighbouring words joined."""
    match tree:
        case Words(text):
            return [text] if text else []
        case Wildcard(name):
            return [("wildcard", name)]
        case Alternatives(options, least, most, separator):
            return [([(_plain(one.tree), one.weight) for one in options], least, most, separator)]
        case Parts(trees):
            joined: list[object] = []
            for one in (piece for part in trees for piece in _plain(part)):
                if joined and isinstance(one, str) and isinstance(joined[-1], str):
                    joined[-1] += one
                else:
                    joined.append(one)
            return joined


@settings(max_examples=400, deadline=None)
@given(_TEMPLATES)
def test_templates_that_are_read_here_have_the_tree_that_dynamicprompts_gives_them(template: str) -> None:
    here = parsed_here(template) if has_syntax(template) else None
    if here is None or "$" in template.replace("$$", ""):
        return
    try:
        theirs = parsed_by_dynamicprompts(template)
    except ManifestError:
        # It refuses a dollar sign, which means nothing there.
        assert "$" in template
        return
    assert _plain(here) == _plain(theirs)


@pytest.mark.parametrize(
    "template",
    ["{a|{b|c}}", "{2$${a|b}|__c__|d}", "{0.5::{a}|b}", "a # remark", "{a|b} // remark", "{~a|b} __~x__"],
)
def test_what_is_not_read_here_dynamicprompts_reads(template: str) -> None:
    assert parsed_here(template) is None
    assert parse(template) == parsed_by_dynamicprompts(template)


def test_bounds_separators_and_weights_are_read() -> None:
    a, b = Option(Words("a")), Option(Words("b"), 2.5)
    assert parse("{1-2$$ and $$a|2.5::b}") == Alternatives((a, b), 1, 2, " and ")
    assert parse("{2$$a|2.5::b}") == Alternatives((a, b), 2, 2, ",")
    assert parse("{3-1$$a|b|c}") == Alternatives((a, Option(Words("b")), Option(Words("c"))), 1, 3, ",")


def test_marks_of_other_tools_and_lone_signs_are_words() -> None:
    for text in ("(a:1.3) [b] 50% for $5", "<lora:x:0.8>", "a_b", "https://x.y/z"):
        assert parse(text) == Words(text)
    assert parse("$5 __x__ 50%") == Parts((Words("$5 "), Wildcard("x"), Words(" 50%")))


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("a ${x=red} b", "column 3: variables, ${name}, are not supported: write what they stand for"),
        ("%{a ... b$$c}", "column 1: wrapping, %{…$$…}, is not supported: write the words around it"),
        ("{!a|b}", "the combinatorial mark ! is not supported: leave `sample` out for all"),
        ("a __@x__", "the cyclical mark @ is not supported: remove it"),
        ("__x(y=z)__", "a wildcard with variables is not supported: remove them"),
        ("__a{b|c}d__", "a wildcard whose name is put together is not supported: write each name"),
        (
            "a fox {red|green",
            "column 7: cannot be read from {red|green on: close {…} or __…__ there, or write it "
            "without these marks",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(template: str, what: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(template)
    assert str(caught.value) == what


@pytest.mark.parametrize(
    "template",
    [
        "{" * 100_000,
        "{a|" * 30_000 + "}" * 30_000,
        "{" * 25 + "a" + "}" * 25,
        "__" * 50_000,
        "{a|" * 3000,
        "#" * 100_001,
        "{x" + "|y" * 40_000 + "{",
        "__a" * 3000 + "{",
    ],
)
def test_hostile_templates_are_refused_in_a_moment(template: str) -> None:
    begun = time.process_time()
    with pytest.raises(ManifestError):
        parse(template)
    assert time.process_time() - begun < 5


def test_different_trees_have_different_canonical_texts() -> None:
    trees = [
        parse(one) for one in ("{a|b}", "{b|a}", "{2::a|b}", "{2$$a|b}", "{2$$ $$a|b}", "__a__", "{a|b}c")
    ]
    assert len({canonical(tree) for tree in [*trees, Words("__a__")]}) == 8
