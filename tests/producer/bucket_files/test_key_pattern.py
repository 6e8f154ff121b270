"""Patterns of the names of a bucket's files."""

from __future__ import annotations

import pytest

from producer.bucket_files.key_pattern import compiled, fixed_folder

NAMES = ("lists/a.txt", "lists/b2.txt", "lists/.hidden.txt", "lists/deep/er/c.txt", "lists2/a.csv", "[a].txt")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("lists/*.txt", ["lists/a.txt", "lists/b2.txt"]),
        ("lists/.*.txt", ["lists/.hidden.txt"]),
        ("lists/[ab]?.txt", ["lists/b2.txt"]),
        ("lists/[!a]*.txt", ["lists/b2.txt"]),
        ("lists/**/*.txt", ["lists/a.txt", "lists/b2.txt", "lists/deep/er/c.txt"]),
        ("*/a.*", ["lists/a.txt", "lists2/a.csv"]),
        ("lists/**", ["lists/a.txt", "lists/b2.txt", "lists/deep/er/c.txt"]),
        ("lists/a.txt", ["lists/a.txt"]),
        ("lists/a+.txt", []),
        ("[[]a].txt", ["[a].txt"]),
        (r"[\&&~[]a].txt", ["[a].txt"]),
        ("lists[+-0]a.txt", []),
    ],
)
def test_a_pattern_matches_as_that_of_a_folder(pattern: str, names: list[str]) -> None:
    assert [name for name in NAMES if compiled(pattern).fullmatch(name)] == names


@pytest.mark.parametrize(
    ("pattern", "folder", "rest"),
    [
        ("a/b/*.txt", "a/b", "*.txt"),
        ("a/[b]/c/d.txt", "a", "[b]/c/d.txt"),
        ("a/b.txt", "a", "b.txt"),
        ("**", "", "**"),
    ],
)
def test_only_the_folder_before_the_first_wildcard_is_listed(pattern: str, folder: str, rest: str) -> None:
    assert fixed_folder(pattern) == (folder, rest)


def test_a_set_of_characters_that_is_none_is_said() -> None:
    with pytest.raises(ValueError, match="bad character range z-a"):
        compiled("[z-a]")
