"""A shard that workers committed, damaged in every way, and what an examination says of it."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jobs.output.metadata import request_of_record
from jobs.output.output import Output
from jobs.output.picture_file import read_picture
from jobs.request import ImageRequest
from producer.doctor.examine_files import examine_shard
from worker.encode import encode

Rendered = Callable[..., Output]


def problems_of(output: Output, shard: int = 0) -> list[tuple[str, str]]:
    """Place and words of every problem."""
    return [(problem.place, problem.what) for problem in examine_shard(output, shard).problems]


def records(output: Output, shard: int = 0) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.metadata_file(shard).read_text().splitlines()]


def write_records(output: Output, records: list[dict[str, object]], shard: int = 0) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    output.metadata_file(shard).write_text(text)


def picture(output: Output, position: int, shard: int = 0):
    return output.shard_folder(shard) / f"{shard:05d}{position:04d}.png"


def as_jpeg(pixels: np.ndarray, request: ImageRequest) -> bytes:
    """A JPEG that holds the request of a PNG."""
    data = encode(pixels, replace(request, image_format="jpeg"))
    old, new = b'"image_format": "jpeg"', b'"image_format": "png" '
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_shard_that_workers_wrote_is_sound(rendered: Rendered, form: str) -> None:
    output = rendered(8, failed=(1, 3), image_format=form)
    found = examine_shard(output, 0)
    assert (found.problems, found.notes) == ([], [])
    assert [image.image_id for image in found.images] == [record["image_id"] for record in records(output)]
    assert len(found.images) == 2
    assert found.failed == [failure.image_id for failure in output.shard_failures(0)]
    assert len(examine_shard(output, 1).images) == 4


def test_a_shard_in_which_all_failed_is_sound(rendered: Rendered) -> None:
    output = rendered(4, failed=(0, 1, 2, 3))
    found = examine_shard(output, 0)
    assert (found.problems, found.images, len(found.failed)) == ([], [], 4)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_truncated_picture_is_named(rendered: Rendered, form: str) -> None:
    output = rendered(4, image_format=form)
    file = output.shard_folder(0) / str(records(output)[2]["file_name"])
    file.write_bytes(file.read_bytes()[:-40])
    ((place, what),) = problems_of(output)
    assert place == f"00000/{file.name}"
    assert what == "bytes were changed: its SHA-256 is not that of its line"
    assert len(examine_shard(output, 0).images) == 3


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_flipped_byte_anywhere_is_named(rendered: Rendered, form: str) -> None:
    output = rendered(4, image_format=form)
    file = output.shard_folder(0) / str(records(output)[1]["file_name"])
    whole = file.read_bytes()
    for at in range(0, len(whole), 101):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert [place for place, _what in problems_of(output)] == [f"00000/{file.name}"], at


def test_a_missing_picture_is_named_with_its_line(rendered: Rendered) -> None:
    output = rendered(4)
    picture(output, 3).unlink()
    assert problems_of(output) == [("00000/000000003.png", "is missing: line 4 of metadata.jsonl names it")]


def test_two_pictures_that_changed_places_are_named(rendered: Rendered) -> None:
    output = rendered(4)
    one, two = picture(output, 0), picture(output, 1)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    ids = [record["image_id"] for record in records(output)]
    assert problems_of(output) == [
        ("00000/000000000.png", f"is another picture: it holds {ids[1]}, its line names {ids[0]}"),
        ("00000/000000001.png", f"is another picture: it holds {ids[0]}, its line names {ids[1]}"),
    ]


def test_a_whole_picture_of_other_bytes_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    all_records = records(output)
    all_records[2]["sha256"] = "0" * 64
    write_records(output, all_records)
    assert problems_of(output) == [
        ("00000/000000002.png", "bytes were changed: its SHA-256 is not that of its line")
    ]


def test_what_is_no_picture_is_named_although_its_line_has_its_hash(rendered: Rendered) -> None:
    output = rendered(4)
    picture(output, 2).write_bytes(b"GIF89a, say")
    all_records = records(output)
    all_records[2]["sha256"] = hashlib.sha256(b"GIF89a, say").hexdigest()
    write_records(output, all_records)
    assert problems_of(output) == [("00000/000000002.png", "is no PNG, JPEG or WebP")]


@pytest.mark.parametrize(("form", "side"), [("png", 32), ("jpeg", 64)])
def test_a_picture_of_another_size_or_format_is_named(rendered: Rendered, form: str, side: int) -> None:
    output = rendered(4)
    all_records = records(output)
    request = request_of_record(all_records[1])
    pixels = np.zeros((side, side, 3), np.uint8)
    data = encode(pixels, request) if form == "png" else as_jpeg(pixels, request)
    picture(output, 1).write_bytes(data)
    all_records[1]["sha256"] = hashlib.sha256(data).hexdigest()
    write_records(output, all_records)
    what = f"is a {form} of {side}x{side}, its line says png of 64x64"
    assert problems_of(output) == [("00000/000000001.png", what)]


def test_a_file_without_its_request_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    file = picture(output, 0)
    data = file.read_bytes()
    at = data.index(b"imagemill\0") - 4
    size = int.from_bytes(data[at - 4 : at], "big")
    without = data[: at - 4] + data[at + size + 8 :]
    file.write_bytes(without)
    assert read_picture(without).request is None
    all_records = records(output)
    all_records[0]["sha256"] = hashlib.sha256(without).hexdigest()
    write_records(output, all_records)
    assert problems_of(output) == [("00000/000000000.png", "holds no request: another program wrote it")]


@pytest.mark.parametrize("name", ["cat.png", "000010000.png", "notes.txt", "000000000.png.bak", "a\nb"])
def test_a_stray_file_is_named(rendered: Rendered, name: str) -> None:
    output = rendered(4)
    (output.shard_folder(0) / name).write_bytes(b"?")
    shown = name.replace("\n", "\\n")
    assert problems_of(output) == [(f"00000/{shown}", "does not belong to the shard")]


def test_a_stray_folder_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    (output.shard_folder(0) / "more").mkdir()
    assert problems_of(output) == [("00000/more", "does not belong to the shard")]


def test_hidden_files_of_others_are_only_reported(rendered: Rendered) -> None:
    output = rendered(4)
    (output.shard_folder(0) / ".DS_Store").write_bytes(b"?")
    found = examine_shard(output, 0)
    assert found.problems == []
    assert found.notes == ["00000/.DS_Store: not imagemill's; dataset readers pass it by"]


def test_cut_metadata_is_named_with_the_pictures_that_lost_their_lines(rendered: Rendered) -> None:
    output = rendered(4)
    ids = [record["image_id"] for record in records(output)]
    lines = output.metadata_file(0).read_bytes().splitlines(keepends=True)
    output.metadata_file(0).write_bytes(b"".join(lines[:2]) + lines[2][:-30])
    assert problems_of(output) == [
        ("00000/metadata.jsonl:3", "is not a JSON object"),
        ("00000/000000002.png", f"no line of metadata.jsonl names it; it holds {ids[2]}"),
        ("00000/000000003.png", f"no line of metadata.jsonl names it; it holds {ids[3]}"),
    ]


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_line_that_is_no_json_object_is_named(rendered: Rendered, line: bytes) -> None:
    output = rendered(4)
    with output.metadata_file(0).open("ab") as file:
        file.write(line + b"\n")
    assert problems_of(output) == [("00000/metadata.jsonl:5", "is not a JSON object")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text": "a dog"}, "the line was changed"),
        ({"seed": 1}, "the line was changed"),
        ({"image_id": "0" * 16}, "the line was changed"),
        ({"text": "\ud800"}, "make no request"),
        ({"sha256": None}, "names no SHA-256"),
    ],
)
def test_a_changed_line_is_named(rendered: Rendered, changed: dict[str, object], words: str) -> None:
    output = rendered(4)
    all_records = records(output)
    all_records[1] |= changed
    output.metadata_file(0).write_text("".join(json.dumps(record) + "\n" for record in all_records))
    ((place, what),) = problems_of(output)
    assert place == "00000/metadata.jsonl:2"
    assert what.startswith("000000001.png: ")
    assert words in what


def test_a_line_without_a_setting_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    all_records = records(output)
    del all_records[0]["text"]
    write_records(output, all_records)
    assert problems_of(output) == [
        ("00000/metadata.jsonl:1", "000000000.png: its settings make no request ('text')")
    ]


@pytest.mark.parametrize("name", ["../00001/000010000.png", "000010000.png", "/etc/passwd", "x.png", None, 3])
def test_a_line_that_names_no_picture_of_the_shard_is_named_and_not_followed(
    rendered: Rendered, name: object
) -> None:
    output = rendered(8)
    all_records = records(output)
    all_records[3]["file_name"] = name
    write_records(output, all_records)
    assert problems_of(output)[0] == (
        "00000/metadata.jsonl:4", f"names no picture of this shard: file_name = {name!r}"
    )  # fmt: skip
    assert [place for place, _ in problems_of(output)] == ["00000/metadata.jsonl:4", "00000/000000003.png"]


def test_a_line_twice_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    all_records = records(output)
    write_records(output, [*all_records, all_records[0]])
    assert problems_of(output) == [("00000/metadata.jsonl:5", "names 000000000.png, as line 1 does")]
    assert len(examine_shard(output, 0).images) == 4


def test_gaps_are_explained_by_failures_and_by_nothing_else(rendered: Rendered) -> None:
    output = rendered(10, failed=(1, 9))
    for shard in range(3):
        assert problems_of(output, shard) == []
    write_records(output, records(output, 1)[3:], 1)
    for position in range(3):
        picture(output, position, 1).unlink()
    assert problems_of(output, 1) == [("00001", "places 0–2 are neither a picture nor a failure")]
    output.failures_file(0).unlink()
    assert problems_of(output, 0) == [("00000", "place 1 is neither a picture nor a failure")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shard": 7}, "is of place 1 of shard 7, not of this one"),
        ({"position": 10_000}, "is of place 10000 of shard 0, not of this one"),
        ({"position": "1"}, "is not a failure (position = '1')"),
        ({"position": 0}, "place 0 has a picture and a failure"),
        ({"image_id": "x"}, "the line was changed"),
        ({"request": {}}, "is not a failure"),
    ],
)
def test_a_wrong_failure_is_named(rendered: Rendered, changed: dict[str, object], words: str) -> None:
    output = rendered(4, failed=(1,))
    failure = json.loads(output.failures_file(0).read_text())
    output.failures_file(0).write_text(json.dumps(failure | changed) + "\n")
    (first, gap) = problems_of(output)
    assert first[0] == "00000/.failures.jsonl:1"
    assert words in first[1]
    assert gap == ("00000", "place 1 is neither a picture nor a failure")


def test_a_shard_with_nothing_in_it_is_named(rendered: Rendered) -> None:
    output = rendered(4)
    output.metadata_file(0).write_bytes(b"")
    assert problems_of(output) == [("00000", "holds no line of metadata and no failure")]


def test_what_is_no_plain_file_is_reported_and_not_waited_for(rendered: Rendered) -> None:
    output = rendered(4)
    picture(output, 0).unlink()
    os.mkfifo(picture(output, 0))
    assert problems_of(output) == [("00000/000000000.png", "cannot be read (not a plain file)")]
    output.metadata_file(0).unlink()
    os.mkfifo(output.metadata_file(0))
    assert problems_of(output) == [("00000/metadata.jsonl", "cannot be read (not a plain file)")]


def test_a_picture_that_was_replaced_by_a_link_to_it_is_sound(rendered: Rendered) -> None:
    output = rendered(4)
    kept = output.path / ".kept.png"
    picture(output, 0).rename(kept)
    picture(output, 0).symlink_to(kept)
    assert problems_of(output) == []
    kept.unlink()
    ((place, what),) = problems_of(output)
    assert (place, what.startswith("is missing")) == ("00000/000000000.png", True)
