"""Names of exported files: from a template, sound on every file system, and never two of one."""

from __future__ import annotations

import pytest

from jobs.errors import JobError, OutputError
from producer.export.columns import value_of
from producer.export.names import NameTemplate, TakenNames

RECORD = {
    "file_name": "000000012.png", "text": "a fox", "image_id": "0" * 16, "seed": 42, "guidance_scale": 7.5,
    "id": "140892", "split": "val", "box": [1, 2], "none": None, "a.b": "dotted",
    "arguments": '{"eta":0.5}',
}  # fmt: skip


def named(template: str, *, suffix: str = ".png", **changed: object) -> str:
    def column(name: str) -> object:
        return value_of({**RECORD, **changed}, name)

    return NameTemplate(template).named(column, 12, suffix, "image 0 (index 12)")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{id}.png", "140892.png"),
        ("{id}", "140892.png"),
        ("{id:0>12}", "000000140892.png"),
        ("{index:06d}.png", "000012.png"),
        ("{index}-{seed:>6}", "12-    42.png"),
        ("{split}_{guidance_scale:.2f}_{arguments.eta}", "val_7.50_0.5.png"),
        ("{a.b}{{{prompt}}}", "dotted{a fox}.png"),
        ("{id}.PNG", "140892.PNG"),
        ("{id}.v1", "140892.v1.png"),
    ],
)
def test_a_template_is_filled_in_from_the_metadata(template: str, name: str) -> None:
    assert named(template) == name


def test_a_suffix_that_the_picture_has_is_not_doubled_and_another_is_refused() -> None:
    assert named("{id}", id="scan.png") == "scan.png"
    assert named("{id}.jpeg", suffix=".jpg") == "140892.jpeg"
    with pytest.raises(
        OutputError, match=r'a \.png file, and would be called "scan\.jpg": end --name with \.p'
    ):
        named("{id}", id="scan.jpg")
    with pytest.raises(OutputError, match=r"a \.webp file.*no suffix where the formats differ"):
        named("{id}.png", suffix=".webp")


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("{", "Single '{'"),
        ("fox.png", "every file would have the same name"),
        ("{}", "must name a column"),
        ("{id!r}", "must name a column"),
        ("{id:9999}", "no short format"),
        ("{id:{seed}}", "no short format"),
    ],
)
def test_what_is_no_template_is_refused_before_anything_is_read(template: str, wrong: str) -> None:
    with pytest.raises(JobError, match=f"--name .*{wrong}"):
        NameTemplate(template)


@pytest.mark.parametrize(
    "value", ["a/b", "..", ".hidden", "a\\b", "a:b", "what?", "CON", "nul.x", " a", "a\nb", "\x00", ""]
)
def test_a_name_that_some_file_system_refuses_is_refused_on_all(value: str) -> None:
    with pytest.raises(OutputError, match=r"image 0 \(index 12\) would be called .*name another column"):
        named("{id}", id=value)


def test_a_name_that_is_too_long_is_refused_by_its_bytes() -> None:
    assert len(named("{id}", id="x" * 247)) == 251
    for value in ("x" * 248, "狐" * 83):
        with pytest.raises(OutputError, match=r"a name of 25[23] bytes.*file systems take 255"):
            named("{id}", id=value)


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("{idd}", r"image 0 .* has no column 'idd' \(do you mean 'id'\?\); it has file_name, text"),
        ("{none}", "has no none: use {index}"),
        ("{box}", "a list or an object"),
        ("{id:06d}", r'id = "140892" of image 0.* is a text, which has no format \'06d\'.*as {id:0>6}'),
        ("{seed:s}", "is a number, which has no format 's'"),
        ("{id[0]}", r"no column 'id\[0\]'"),
    ],
)
def test_a_column_that_gives_no_name_is_refused_with_the_remedy(template: str, wrong: str) -> None:
    with pytest.raises(OutputError, match=wrong):
        named(template)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("Fox", "fox"), ("é", "e\u0301"), ("straße", "STRASSE")]
)
def test_two_files_of_one_name_are_refused_also_where_case_does_not_count(one: str, other: str) -> None:
    taken = TakenNames()
    for number, name in enumerate(["first", one, "between", other]):
        if number < 3:
            taken.add(name, 0xA0 + number, lambda index, key: f"{key:x}@{index}")
    with pytest.raises(OutputError, match=r"a1@1 and a3@3 would both be called .*add {index} to --name, or "):
        taken.add(other, 0xA3, lambda index, key: f"{key:x}@{index}")
