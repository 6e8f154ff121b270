"""A1111's brackets become weights, as its own web interface reads them; what is not rendered is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.prompt_weights import MOST_WEIGHT, PromptSyntaxError, a1111_sections, check_compel, weights_trouble


def parts(text: str) -> list[tuple[str, float]]:
    """The parts of a text without a BREAK, weights to 4 digits."""
    [section] = a1111_sections(text)
    return [(part.text, round(part.weight, 4)) for part in section]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("", [("", 1.0)]),
        ("a (cat:1.3) here", [("a ", 1.0), ("cat", 1.3), (" here", 1.0)]),
        ("a (cat : 1.3 )", [("a ", 1.0), ("cat ", 1.3)]),
        ("((a)) [b]", [("a", 1.21), (" ", 1.0), ("b", 0.9091)]),
        ("(a (b:2) [c])", [("a ", 1.1), ("b", 2.2), (" ", 1.1), ("c", 1.0)]),
        ("((a:1.5) b:0.5)", [("a", 0.75), (" b", 0.5)]),
        ("(a:-0.5)", [("a", -0.5)]),
        (r"\(a\) \[b\] \\", [("(a) [b] \\", 1.0)]),
        ("(a", [("a", 1.1)]),
        ("[a", [("a", 0.9091)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("at 5:30 (a:b)", [("at 5:30 ", 1.0), ("a:b", 1.1)]),
        ("[a:b]", [("a:b", 0.9091)]),
        ("a | b", [("a | b", 1.0)]),
        ("and, band", [("and, band", 1.0)]),
    ],
)
def test_brackets_become_weights(text: str, expected: list[tuple[str, float]]) -> None:
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("a barn BREAK a field", [["a barn"], ["a field"]]),
        ("a BREAK, b\n BREAK  c", [["a"], [", b"], ["c"]]),
        ("BREAK a", [[""], ["a"]]),
        ("(a BREAK b:1.2) c", [["a"], ["b", " c"]]),
        ("a BREAKfast", [["a BREAKfast"]]),
    ],
)
def test_break_begins_another_section(text: str, texts: list[list[str]]) -> None:
    assert [[part.text for part in section] for section in a1111_sections(text)] == texts


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a moth, <lora:moth_v2:0.8>", "<lora:moth_v2:0.8> names a LoRA"),
        ("<hypernet:anime:1> a moth", "<hypernet:anime:1> names a hypernetwork"),
        ("embedding:easyneg, tree", "embedding:easyneg names a textual inversion"),
        ("a [cat|dog] here", "[cat|dog] alternates"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5] changes the text after some steps"),
        ("a [cat:10]", "[cat:10] changes"),
        ("a [cat::0.25]", "[cat::0.25] changes"),
        ("a cat AND a dog", "AND composes several prompts"),
        ("(a:1.2.3)", "1.2.3 is no number"),
        ("(a:101)", "a has a weight of 101: it must lie between -100 and 100"),
        (" BREAK ".join("abcdefghijklmnopqrstuvwxyz0123456789"), "BREAK makes 36 chunks"),
    ],
)
def test_what_is_not_rendered_is_named(text: str, names: str) -> None:
    trouble = weights_trouble(text, "a1111")
    assert trouble is not None and names in trouble
    assert weights_trouble(text, "plain") is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a <lora:x:1>", "names a LoRA"),
        ("a withLora(x, 0.5)", "withLora(x, 0.5) names a LoRA"),
        ("a cat.swap(dog)", ".swap() is not rendered"),
        ("a BREAK b", "or set syntax: a1111"),
        ("a (cat:1.3)", "write (text)1.3, or set syntax: a1111"),
        ("(" * 33 + "a", "nested 33 deep"),
        ("a " * 5000, "10,000 characters"),
    ],
)
def test_compel_s_syntax_is_checked_for_what_it_would_misread(text: str, names: str) -> None:
    with pytest.raises(PromptSyntaxError) as caught:
        check_compel(text)
    assert names in str(caught.value)


def test_compel_s_own_forms_pass() -> None:
    for text in ("a (cat)1.3", "cat++ dog--", '("a", "b").blend(0.5, 0.5)', '("a", "b").and()', ") ) ("):
        assert weights_trouble(text, "compel") is None


@given(st.text(st.characters(blacklist_characters="()[]\\:|<", blacklist_categories=["Cs"])))
def test_a_text_without_brackets_stays_as_it_is(text: str) -> None:
    if "BREAK" not in text and "AND" not in text:
        assert parts(text) == [(text, 1.0)]


@given(st.lists(st.sampled_from(["(", ")", "[", "]", ":1.2", "a", " ", "\\", ",", "BREAK"]), max_size=60))
def test_every_character_is_a_bracket_an_escape_a_weight_or_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        sections = a1111_sections(text)
    except PromptSyntaxError:
        return
    assert len(sections) <= text.count("BREAK") + 1
    for section in sections:
        assert section
        for part in section:
            assert abs(part.weight) <= MOST_WEIGHT
    assert sum(part.text.count("a") for section in sections for part in section) == text.count("a")


@given(st.integers(0, 40), st.integers(0, 40))
def test_nested_brackets_multiply(rounds: int, squares: int) -> None:
    text = "(" * rounds + "[" * squares + "a" + "]" * squares + ")" * rounds
    [(found, weight)] = a1111_sections(text)[0]
    assert found == "a"
    assert weight == pytest.approx(1.1 ** (rounds - squares))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000 + "a" + ")" * 100_000,
        "[" * 100_000 + "a" + "]" * 100_000,
        "(:" * 50_000,
        " " * 100_000 + "BREA",
        "(a:" + "1" * 100_000 + ")",
        "\\" * 100_001,
        "<" * 100_000,
        "<a:" * 40_000,
        "(a)[b]" * 20_000,
    ],
    ids=lambda text: text[:6],
)
def test_hostile_texts_take_no_time(text: str) -> None:
    began = time.monotonic()
    for syntax in ("a1111", "compel"):
        weights_trouble(text, syntax)
    assert time.monotonic() - began < 10
