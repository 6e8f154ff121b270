"""Texts that look like another tool's syntax are found, counted and told with the key to set."""

from __future__ import annotations

import time

import pytest

from producer.manifest.syntax_marks import MARKS, Found, Marks, marked

WEIGHTS, COMPEL, LORA, NETWORK, EMBEDDING, PARTS, ALTERNATIVES, WILDCARD, FLAGS = range(len(MARKS))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a (red:1.3) fox", {WEIGHTS}),
        ("a (1girl:2) b", {WEIGHTS}),
        ("a ((red)) fox", {WEIGHTS}),
        ("a [dull] fox", {WEIGHTS}),
        ("[dawn:dusk:0.4] and [cat|dog]", {WEIGHTS}),
        ("a red++ fox", {COMPEL}),
        ("(red fox)-- in fog", {COMPEL}),
        ('("a", "b").blend(1, 2)', {COMPEL}),
        ("<lora:moss:0.8> a fox", {LORA}),
        ("<LoRA:moss> a fox", {LORA}),
        ("<hypernet:moss:1>", {NETWORK}),
        ("embedding:easyneg, tree", {EMBEDDING}),
        ("a barn BREAK a field", {PARTS}),
        ("a cat AND a dog", {PARTS}),
        ("a {red|blue} fox", {ALTERNATIVES}),
        ("{2$$a} b", {ALTERNATIVES}),
        ("${x=a} b", {ALTERNATIVES}),
        ("a __color__ fox", {WILDCARD}),
        ("a __animal/*__ and __~x__", {WILDCARD}),
        ("__*__", {WILDCARD}),
        ("a fox --ar 16:9", {FLAGS}),
        ("a fox --v 6", {FLAGS}),
        ("a fox\n--no fog", {FLAGS}),
        ("a fox --n blurry --w 512", {FLAGS}),
        ("a (b:1.2) {c|d} --ar 1:1", {WEIGHTS, ALTERNATIVES, FLAGS}),
    ],
)
def test_each_kind_is_found(text: str, kinds: set[int]) -> None:
    assert marked([text]).keys() == kinds


@pytest.mark.parametrize(
    "text",
    [
        "a fox (red) in fog, 16:9 (or 4:3), (ratio 16:9)",
        "a - b -- c—d, well--known",
        "CATS AND DOGS, BREAKFAST, SAND",
        "1 < 2 <b>bold</b>",
        "C++ code",
        "f(x), a_b, _private, ___",
        "{braces} and {}",
        "embedding: a word",
        "",
    ],
)
def test_ordinary_texts_have_no_mark(text: str) -> None:
    assert marked([text]).keys() <= ({COMPEL} if "C++" in text else set())


def test_texts_are_counted_once_for_each_kind_and_the_first_is_known() -> None:
    texts = ["a", "(b:1.2) [c]", "d", "((e)) and ((f))", "{g|h}", ""]
    assert marked(texts) == {WEIGHTS: (2, 1), ALTERNATIVES: (1, 4)}
    assert marked([]) == {}


def test_a_mark_does_not_reach_into_the_next_text() -> None:
    assert marked(["a (b", ":1.2) c", "{d", "|e}", "__f", "g__", "h --", "ar 1"]) == {}


@pytest.mark.parametrize("text", ["(", "[a", "{a", "__a", " --a", "<lora:", "embedding:", "AND ", "a++ ("])
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()
    marked([text * 100_000])
    assert time.process_time() - begun < 5


def test_a_warning_counts_names_the_first_and_the_key_to_set() -> None:
    marks = Marks()
    marks.add({WEIGHTS: Found(1, "m.yaml:3:5: prompts[0]")})
    marks.add({WEIGHTS: Found(2, "p.txt:7"), WILDCARD: Found(1, "p.txt:9")})
    assert list(marks.warnings(["plain"])) == [
        "3 prompts with weights, (text:1.3), ((text)) or [text], first m.yaml:3:5: prompts[0]: they are "
        "painted as words: write `syntax: a1111` to weigh them",
        "1 prompt with wildcards, __name__, first p.txt:9: they are painted as words: write `syntax: "
        "dynamic` to draw from their files",
    ]
    assert list(marks.warnings(["dynamic", "a1111"])) == []


@pytest.mark.parametrize(
    ("read", "mark", "key"),
    [
        (["plain", "plain"], WEIGHTS, "a1111"),
        (["dynamic", "plain"], WEIGHTS, "[dynamic, a1111]"),
        (["dynamic", "compel"], WEIGHTS, "[dynamic, a1111]"),
        (["plain", "compel"], WEIGHTS, "a1111"),
        (["plain", "plain"], WILDCARD, "dynamic"),
        (["plain", "a1111"], WILDCARD, "[dynamic, a1111]"),
        (["plain", "compel"], WILDCARD, "[dynamic, compel]"),
    ],
)
def test_the_key_to_set_goes_on_reading_what_the_manifest_reads(read: list[str], mark: int, key: str) -> None:
    marks = Marks()
    marks.add({mark: Found(1, "p.txt:1")})
    [warning] = marks.warnings(read)
    assert f": write `syntax: {key}` to " in warning
