"""A new setting is one field of ImageRequest: here it is added to a copy of the code, and nothing else is."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.request import ImageRequest

ROOT = Path(__file__).parent.parent
FIELD = """
    clip_skip: Annotated[
        int, Setting(Whole(range(13)), "Layers of the text encoder to leave out.", added_later=True)
    ] = 0
"""


def with_the_field(source: str) -> str:
    """jobs/request.py with one field more, the last of ImageRequest."""
    [request] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "ImageRequest"
    ]
    end = max(node.end_lineno or 0 for node in request.body if isinstance(node, ast.AnnAssign))
    lines = source.splitlines(keepends=True)
    return "".join([*lines[:end], FIELD, *lines[end:]])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `new_setting_journey` prints in a copy whose ImageRequest has a setting more."""
    copy, folder = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("manifests")
    for package in ("jobs", "producer", "worker"):
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("shapes", "__pycache__")
        )
    request = copy / "jobs" / "request.py"
    request.write_text(with_the_field(request.read_text()))
    script = shutil.copy(ROOT / "tests" / "new_setting_journey.py", copy)
    done = subprocess.run(
        [sys.executable, script, folder],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_it_is_taken_from_settings_prompts_every_kind_of_row_and_a_sweep(seen: dict[str, Any]) -> None:
    assert seen["wire"] == [
        ["as in settings", 1],
        ["prompt", 2],
        ["jsonl", 3],
        ["jsonl, as in settings", 1],
        ["csv", 4],
        ["parquet", 5],
        ["sweep", 0],
        ["sweep", 6],
        ["none", 0],
    ]
    assert seen["wire loses nothing"]


def test_it_goes_through_the_command_line_the_metadata_the_table_and_the_card(seen: dict[str, Any]) -> None:
    values = [1, 2, 3, 1, 4, 5, 0, 6, 0]
    assert seen["--request"] == values
    assert seen["--request without"] == 0
    assert seen["metadata"] == [value if value != 0 else "left out" for value in values]
    assert seen["metadata gives the request back"]
    columns = seen["metadata columns"]
    assert columns[columns.index("clip_skip") - 1 :][:3] == ["init_latents", "clip_skip", "id"]
    assert seen["parquet"] == ["int64", values]
    assert seen["card"] == 1


def test_what_was_rendered_before_keeps_its_id_and_its_bytes(seen: dict[str, Any]) -> None:
    before = ImageRequest(prompt="a fox", seed=3, model="m", revision="r")
    assert seen["id at the default"] == before.image_id == "3ea19cc69b2e04ec"
    assert seen["JSON at the default"] == before.to_json()
    other = ImageRequest(prompt="prompt", seed=7, model="instant", revision="instant-1")
    assert seen["ids"]["prompt"] != other.image_id


def test_it_is_described_and_its_bounds_are_kept_everywhere(seen: dict[str, Any]) -> None:
    schema = seen["schema"]
    bounds = {"type": "integer", "minimum": 0, "maximum": 12}
    assert schema["DefaultSettings"].items() >= (bounds | {"default": 0}).items()
    assert schema["PromptLine"].items() >= bounds.items()
    assert schema["Sweep"]["items"] == bounds
    assert all("Layers of the text encoder to leave out." in one["description"] for one in schema.values())
    assert seen["refused"] == {
        "settings": "1:53: settings.clip_skip = 13: must be at most 12",
        "prompt": '1:64: prompts[0].clip_skip = "1": must be a whole number, without quotes',
        "sweep": "1:50: sweep.clip_skip = a list of 2: holds 1 twice: remove one",
        "--request": "--request: clip_skip = 13: must be a whole number, 0 to 12",
    }
