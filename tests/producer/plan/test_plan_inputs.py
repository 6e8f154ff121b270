"""A plan tells how images are painted from pictures, and what a submission copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.settings import Settings
from producer.plan.plan import Plan, plan_submission
from producer.plan.report import report, to_json
from producer.requests.prepared import prepare

LINES = [
    {"prompt": "a", "image": "red.png"},
    {"prompt": "b", "image": "red.png"},
    {"prompt": "c", "image": "red.png", "mask_image": "blue.png"},
    "d",
]


def planned(folder: Path, prompts: list[object], **keys: object) -> Plan:
    """The plan of a manifest with these prompts."""
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(folder / f"{colour}.png")
    manifest = {
        "name": "m",
        "model": "instant",
        "output": str(folder / "out"),
        "settings": {"height": 64, "width": 64},
        "prompts": prompts,
    }
    (folder / "m.yaml").write_text(json.dumps(manifest | keys))  # JSON is YAML
    return plan_submission(prepare(folder / "m.yaml", Settings()), Settings())


def told(plan: Plan, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the report says, by the first word of its lines."""
    report(plan)
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    return {head: rest for head, *more in lines for rest in more}


def test_tasks_and_files_are_counted_and_each_file_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tmp_path, LINES)
    size = sum((tmp_path / f"{colour}.png").stat().st_size for colour in ("red", "blue"))
    said = told(plan, capsys)
    assert said["tasks"] == "text-to-image 1, image-to-image 2, inpainting 1"
    assert (
        said["inputs"]
        == f"2 files, {size} bytes: a submission copies each into the output, unless it is there"
    )
    stated = to_json(plan)
    assert stated["tasks"] == {"image": 2, "image+mask_image": 1}
    assert (stated["input_files"], stated["input_bytes"]) == (2, size)


def test_referenced_files_are_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(planned(tmp_path, LINES, inputs="reference"), capsys)
    assert said["inputs"].endswith("workers read each where it lies (inputs: reference)")


def test_a_plan_of_text_alone_says_nothing_of_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(tmp_path, ["a"])
    assert not {"tasks", "inputs"} & told(plan, capsys).keys()
    assert (plan.tasks, plan.input_files, plan.input_bytes) == ({}, 0, 0)
