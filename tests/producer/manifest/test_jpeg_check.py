"""Texts that no JPEG holds are refused before anything is queued, each at its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ManifestError
from jobs.output.jpeg_text import jpeg_trouble
from jobs.settings import Settings
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare

LONG, SHORT = "狐" * 40_000, "a fox"


def plan(folder: Path, rows: list[dict[str, Any]] | None = None, **keys: Any) -> int:
    """The images of a manifest with these keys and, where there are some, these rows of a file."""
    manifest = {
        "name": "foxes", "model": "instant", "image_format": "jpeg", "output": str(folder / "out"),
        "settings": {"height": 16, "width": 16},
    } | keys  # fmt: skip
    if rows is not None:
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        manifest["prompts_from"] = "rows.jsonl"
    (folder / "foxes.yaml").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
    return plan_submission(prepare(folder / "foxes.yaml", Settings()), Settings()).survey.images


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"prompt": LONG}, "prompt"),
        ({"prompt": SHORT, "negative_prompt": LONG}, "negative_prompt"),
        ({"prompt": LONG, "seed": 7}, "prompt"),
    ],
)
def test_a_row_is_named_by_its_file_and_line(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError) as refused:
        plan(tmp_path, [{"prompt": SHORT}, row])
    assert str(refused.value).startswith(
        f"{tmp_path}/rows.jsonl:2: {field} (40,000 characters) is too long for a JPEG, which has 65,533 bytes"
    )
    assert str(refused.value).endswith("shorten it, or use image_format: png or webp")


@pytest.mark.parametrize(
    "prompt", [LONG, {"prompt": LONG}, {"prompt": "a {x}", "variables": {"x": ["fox", LONG]}}]
)
def test_a_prompt_of_the_manifest_is_named_by_its_line(tmp_path: Path, prompt: object) -> None:
    with pytest.raises(
        ManifestError, match=r"foxes\.yaml:\d+:\d+: prompts\[1\]: prompt \(40,00\d characters"
    ):
        plan(tmp_path, prompts=[SHORT, prompt])


def test_a_value_that_is_swept_counts(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"prompts\[0\]: negative_prompt \(40,000 characters\)"):
        plan(tmp_path, prompts=[SHORT], sweep={"negative_prompt": ["", LONG]})


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_other_formats_hold_it(tmp_path: Path, image_format: str) -> None:
    assert plan(tmp_path, [{"prompt": LONG}], image_format=image_format) == 1


@pytest.mark.parametrize("letter", ["x", "狐", '"'])
def test_the_same_prompts_are_taken_that_a_jpeg_holds(tmp_path: Path, letter: str) -> None:
    """To the character: with the seed that it has."""

    def taken(length: int) -> bool:
        try:
            return plan(tmp_path, [{"prompt": letter * length, "seed": 12}]) == 1
        except ManifestError:
            return False

    low, high = 0, 40_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken(middle) else (low, middle)
    taken(low)
    ((_, entry),) = prepare(tmp_path / "foxes.yaml", Settings()).entries()
    assert jpeg_trouble(entry.request) is None
    assert jpeg_trouble(replace(entry.request, prompt=letter * high)) is not None
