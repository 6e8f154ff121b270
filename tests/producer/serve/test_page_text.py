"""Strangers' text on a page turns nothing around, and is as it was."""

from __future__ import annotations

import html
import re
import time

import pytest

from producer.serve import page_text

HEBREW, ARABIC = "שלום", "سلام"
MARKS = ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"]


def text_of(page: str) -> str:
    """What a person copies of a piece of a page."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("make", [page_text.isolated, page_text.mixed, page_text.message])
def test_a_mark_is_boxed_and_shown_and_copied_as_it_is(make: object, mark: str) -> None:
    made = str(make(f"a{mark}b <c>"))  # type: ignore[operator]
    assert f"<i class=turns data-mark=U+{ord(mark):04X}>{mark}</i>b &lt;c&gt;" in made
    assert text_of(made) == f"a{mark}b <c>"


@pytest.mark.parametrize("mark", MARKS)
def test_where_no_markup_can_be_a_mark_is_its_escape(mark: str) -> None:
    assert page_text.bare(f'a{mark}b "c"') == f"a\\u{ord(mark):04x}b &#34;c&#34;"


def test_words_from_right_to_left_are_isolated_from_what_stands_beside_them() -> None:
    assert page_text.isolated(HEBREW) == f"<bdi>{HEBREW}</bdi>"
    assert page_text.bare(HEBREW) == f"\u2068{HEBREW}\u2069"
    said = page_text.message(f"no worker takes org/{HEBREW} {ARABIC}: 12 of 3, start `one --model {HEBREW}`")
    assert said == (
        f"no worker takes <bdi>org/{HEBREW} {ARABIC}:</bdi> 12 of 3, start "
        f"<code>one --model <bdi>{HEBREW}</bdi></code>"
    )


def test_long_words_cost_no_time() -> None:
    """The time grows with the text, not with its square."""
    began = time.process_time()
    for text in ("a" * 10**6, "a" * 10**6 + f" {HEBREW}", "a " * 10**5 + HEBREW, f"{HEBREW} " * 10**4):
        assert text_of(str(page_text.mixed(text))) == text
    assert time.process_time() - began < 10


def test_other_text_is_as_it_was() -> None:
    assert page_text.isolated("a fox, été 🦊 👩‍🚀") == "a fox, été 🦊 👩‍🚀"
    assert page_text.isolated(7) == 7
    assert page_text.message("one\n`two` and `three") == "one<br>`two` and `three"


def test_the_beginning_of_a_prompt_has_300_characters() -> None:
    assert page_text.short("a" * 300) == "a" * 300
    assert page_text.short("a" * 301) == "a" * 299 + "…"
