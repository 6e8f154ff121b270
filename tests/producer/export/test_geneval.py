"""GenEval's folders, read as its own evaluation reads them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import OutputError
from producer.export.geneval import GenEval
from producer.export.source import Picture

LINES: list[dict[str, Any]] = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}],
        "prompt": "a photo of two clocks",
    },
    {
        "tag": "position",
        "include": [
            {"class": "dog", "count": 1},
            {"class": "teddy bear", "count": 1, "position": ["left of", 0]},
        ],
        "prompt": "a photo of a dog right of a teddy bear",
    },
]


def picture(number: int, line: dict[str, Any], *, suffix: str = "png", **changed: Any) -> Picture:
    """A sample of a line; a column that the line lacks is null, as in a job's metadata."""
    data = f"picture {number}".encode()
    columns = {name: line.get(name) for name in ("tag", "include", "exclude")}
    record = {
        "file_name": f"{number:09d}.{suffix}", "text": line["prompt"], "image_id": f"{number:016x}",
        "guidance_scale": 7.5, "seed": 900 - number, "id": None, **columns, "job_id": "g-1",
        "rendered_rows": 16, "sha256": hashlib.sha256(data).hexdigest(), **changed,
    }  # fmt: skip
    return Picture(record, data)


def write(target: Path, pictures: Sequence[Picture]) -> None:
    form = GenEval()
    for one in pictures:
        form.add(one.record)
    assert form.write(target, iter(pictures)).prompts == len({one.record["text"] for one in pictures})


def evaluated(images: Path) -> list[tuple[str, dict[str, Any], bytes]]:
    """What GenEval's evaluation finds: folder, metadata and file of each sample. It asks for `tag`, and
    iterates over `include` and `exclude` where they are there."""
    found = []
    for folder in sorted(images.iterdir()):
        if not folder.is_dir() or not folder.name.isdigit():
            continue
        with (folder / "metadata.jsonl").open(encoding="ascii") as file:
            metadata = json.load(file)
        for image in sorted((folder / "samples").iterdir()):
            if not image.is_file() or not re.match(r"\d+\.png", image.name):
                continue
            for wanted in (*metadata.get("include", []), *metadata.get("exclude", [])):
                assert wanted["count"] >= 1
                if "position" in wanted:
                    relation, target = wanted["position"]
                    assert (relation, target) == ("left of", 0)
            assert metadata["tag"]
            found.append((f"{folder.name}/{image.name}", metadata, image.read_bytes()))
    return found


def test_the_evaluation_finds_every_sample_below_the_line_as_it_was(tmp_path: Path) -> None:
    pictures = [picture(number, LINES[number // 4]) for number in range(12)]
    write(tmp_path / "geneval", pictures)
    assert evaluated(tmp_path / "geneval") == [
        (f"{number // 4:05d}/{number % 4:04d}.png", LINES[number // 4], f"picture {number}".encode())
        for number in range(12)
    ]
    text = (tmp_path / "geneval/00001/metadata.jsonl").read_text("ascii")
    assert text == json.dumps(LINES[1])


def test_samples_of_a_prompt_that_lie_apart_come_together_in_their_order(tmp_path: Path) -> None:
    pictures = [picture(number, LINES[number % 3]) for number in range(6)]
    write(tmp_path / "geneval", pictures)
    found = [(name, data) for name, _, data in evaluated(tmp_path / "geneval")]
    assert found[:2] == [("00000/0000.png", b"picture 0"), ("00000/0001.png", b"picture 3")]


def test_columns_that_are_json_text_in_the_metadata_are_lists_again(tmp_path: Path) -> None:
    pictures = [
        picture(number, line, include=json.dumps(line["include"]), note='["left open'[: 5 + number])
        for number, line in enumerate(LINES)
    ]
    write(tmp_path / "geneval", pictures)
    metadata = [metadata for _, metadata, _ in evaluated(tmp_path / "geneval")]
    assert [one["include"] for one in metadata] == [line["include"] for line in LINES]
    assert [one["note"] for one in metadata] == ['["lef', '["left', '["left ']


def test_equal_prompts_of_two_lines_have_folders_of_their_own(tmp_path: Path) -> None:
    again = {**LINES[0], "tag": "again", "prompt": LINES[0]["prompt"]}
    form = GenEval()
    pictures = [picture(0, LINES[0]), picture(1, again), picture(2, LINES[0])]
    for one in pictures:
        form.add(one.record)
    assert form.write(tmp_path / "geneval", iter(pictures)).prompts == 2
    assert [metadata["tag"] for _, metadata, _ in evaluated(tmp_path / "geneval")] == [
        "single_object", "single_object", "again",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (picture(1, LINES[0], suffix="jpg"), r"index 1\) is no PNG.*image_format: png"),
        (picture(1, LINES[0], tag=None), r"has no tag.*columns: \[tag, include, exclude\]"),
        (picture(1, LINES[0], guidance_scale=3.0), "other settings than another picture of its prompt"),
    ],
)
def test_what_geneval_would_misread_is_refused(wrong: Picture, message: str) -> None:
    form = GenEval()
    form.add(picture(0, LINES[0]).record)
    with pytest.raises(OutputError, match=message):
        form.add(wrong.record)
