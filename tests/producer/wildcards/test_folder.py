"""Wildcards are found as dynamicprompts finds them; what is missing or wrong is named with its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from producer.wildcards.folder import MOST_BYTES, WildcardFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animal").mkdir()
    (tmp_path / "color.txt").write_text("# warm\nred\n\n  orange \n0.5::teal\nred\n")
    (tmp_path / "animal/big.txt").write_text("\ufeffelephant\r\nwhale\r\n", "utf-8")
    (tmp_path / "animal/small.txt").write_text("mouse\nwhale\n")
    (tmp_path / "more.yaml").write_text(
        "place:\n  near: [hill, 3::lake, 7]\n  far: {text: moon}\nlight: dusk\n"
        "items: [{text: a, weight: 2}]\n"
    )
    (tmp_path / "time.json").write_text('["dawn", "noon"]')
    return tmp_path


def _texts(folder: Path, name: str) -> list[str]:
    return [option.text for option in WildcardFolder(folder).options(name)]


def test_a_text_file_gives_its_lines_once_without_comments(folder: Path) -> None:
    options = WildcardFolder(folder).options("color")
    assert [(one.text, one.weight) for one in options] == [("red", 1), ("orange", 1), ("teal", 0.5)]
    assert [one.place for one in options] == [f"{folder}/color.txt:{line}" for line in (2, 4, 5)]


def test_names_have_folders_and_patterns_and_are_looked_for_below(folder: Path) -> None:
    assert _texts(folder, "animal/big") == ["elephant", "whale"]
    assert _texts(folder, "animal/*") == ["elephant", "whale", "mouse"]
    assert _texts(folder, "small") == ["mouse", "whale"]


def test_yaml_and_json_give_lists_by_name(folder: Path) -> None:
    assert [(one.text, one.weight) for one in WildcardFolder(folder).options("place/near")] == [
        ("hill", 1),
        ("lake", 3),
        ("7", 1),
    ]
    assert _texts(folder, "light") == ["dusk"]
    assert _texts(folder, "time") == ["dawn", "noon"]
    assert [(one.text, one.weight) for one in WildcardFolder(folder).options("items")] == [("a", 2)]


def test_only_files_that_gave_an_option_are_hashed(folder: Path) -> None:
    wildcards = WildcardFolder(folder)
    wildcards.options("color")
    wildcards.options("time")
    assert wildcards.files == {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (folder / "color.txt", folder / "time.json")
    }


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("colr", "__colr__: no such wildcard in {0}: did you mean __color__?"),
        (
            "xyzzy",
            "__xyzzy__: no such wildcard in {0}: it has __animal/big__, __animal/small__, "
            "__color__, __items__, __light__",
        ),
    ],
)
def test_a_missing_wildcard_is_named_with_near_ones(folder: Path, name: str, what: str) -> None:
    with pytest.raises(ManifestError) as caught:
        WildcardFolder(folder).options(name)
    assert str(caught.value) == what.format(folder)


def test_a_folder_beside_the_missing_one_is_proposed_when_it_has_the_wildcard(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"there is no folder .*: write `wildcards: animal`$"):
        WildcardFolder(folder / "wildcards").options("big")
    with pytest.raises(ManifestError, match=r"there is no folder .*: make it, or name another one by `wild"):
        WildcardFolder(folder / "wildcards").options("color")


@pytest.mark.parametrize(
    ("name", "contents", "what"),
    [
        ("bad.txt", b"one\ntw\xff\n", "{0}/bad.txt:2: is not UTF-8 (byte 0xff): save the file as UTF-8"),
        ("bad.txt", b"one\n\0\n", "{0}/bad.txt:2: holds the character NUL"),
        ("bad.txt", b"# none\n\n", "__bad__: {0}/bad.txt: holds no option: write one a line"),
        ("bad.yaml", b"bad: 7\n", "{0}/bad.yaml: bad: must be a list of texts"),
        ("bad.yaml", b"bad: [[1]]\n", "{0}/bad.yaml: bad[0]: must be a text, or {{text: …, weight: 2}}"),
        ("bad.json", b"{", "{0}/bad.json: cannot be read as json: Expecting property name"),
        (
            "color.yaml",
            b"color: [red]\n",
            "__color__: {0}/color.txt and {0}/color.yaml both have it: rename one",
        ),
        ("bad.txt", b"x" * (MOST_BYTES + 1), "{0}/bad.txt: is larger than 16 MiB"),
        ("bad.txt", b"\n".join(b"%d" % n for n in range(100_001)), "__bad__: has more than 100,000 options"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str, contents: bytes, what: str) -> None:
    (folder / name).write_bytes(contents)
    with pytest.raises(ManifestError) as caught:
        WildcardFolder(folder).options("bad")
    assert str(caught.value).startswith(what.format(folder))


def test_links_that_lead_back_are_walked_once(folder: Path) -> None:
    (folder / "animal/again").symlink_to(folder)
    assert _texts(folder, "*/big") == ["elephant", "whale"]
