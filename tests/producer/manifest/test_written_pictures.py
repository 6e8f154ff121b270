"""A picture's name in a manifest: braces are filled with what is the line's own, and all else is itself."""

from __future__ import annotations

import pytest

from jobs.errors import ManifestError
from producer.manifest.written_pictures import (
    WrittenPicture,
    escaped,
    fields_of,
    filled,
    with_pictures,
)


def test_a_name_is_filled_with_the_lines_own_values() -> None:
    line = {"id": "a/1", "breed": "tabby", "page": 3}
    assert filled("{id}-{breed}-{page}.png", line) == "a/1-tabby-3.png"
    assert filled("no braces.png", {}) == "no braces.png"
    assert filled("{{id}}.png", line) == "{id}.png"
    assert fields_of("{id}/{{x}}/{breed}.png") == ("id", "breed")


@pytest.mark.parametrize("name", ["a.png", "{id}", "}{", "{{id}}", "a{b}c"])
def test_an_escaped_name_means_itself(name: str) -> None:
    assert filled(escaped(name), {}) == name


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{id}.png", "the line has no id for {id}: give the line one, or write the file's name"),
        ("{breed}.png", "the line has no breed for {breed}: name a column of its own"),
        ("{sure}.png", "sure = 0.5: is no text, so it names no file"),
    ],
)
def test_what_a_line_does_not_have_is_said_with_the_remedy(text: str, what: str) -> None:
    with pytest.raises(ManifestError) as refused:
        filled(text, {"id": None, "sure": 0.5})
    assert str(refused.value).startswith(what)


def test_an_address_and_a_lone_brace_are_no_names() -> None:
    names = WrittenPicture()
    for wrong in (
        "https://a.b/c.png",
        "ftp://a/b.png",
        "data:image/png;base64,AA==",
        "a{b.png",
        "a}b.png",
        "",
    ):
        assert names.plain(wrong) is None
    for right in ("a.png", "{id}.png", "../a.png", "~/a.png", "C:\\a.png", "día.png"):
        assert names.plain(right) == right
    with pytest.raises(ManifestError, match="is an address: download the picture, and name its file"):
        names.of_text("https://a.b/c.png")


def test_pictures_of_a_part_get_other_paths_and_the_rest_stays() -> None:
    part = {"image": "a.png", "control_image": ["b.png", "c.png"], "prompt": "a.png", "mask_image": None}
    assert with_pictures(part, str.upper) == part | {"image": "A.PNG", "control_image": ["B.PNG", "C.PNG"]}
    assert with_pictures("a.png", str.upper) == "a.png"
