"""Brackets in the names of folders are no patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.settings import Settings
from producer.manifest.path_names import PathNames
from producer.plan.plan import plan_submission
from producer.requests.prepared import prepare


@pytest.mark.parametrize("folder", ["[v2]", "a[!b]*c?", "[open"])
@pytest.mark.parametrize("file", ["*.txt", "p[12].txt", "p1.txt", "p?.txt", "../*/p[1-2].txt"])
def test_a_pattern_is_read_in_a_folder_whose_name_has_brackets(
    tmp_path: Path, folder: str, file: str
) -> None:
    here = tmp_path / folder
    here.mkdir()
    for name in ("p1.txt", "p2.txt"):
        (here / name).write_text(f"a fox of {name}")
    given = {"name": "cats", "model": "instant", "output": str(tmp_path / "out"), "prompts_from": file}
    (here / "cats.yaml").write_text(json.dumps(given))
    prepared = prepare(here / "cats.yaml", Settings())
    plan = plan_submission(prepared, Settings())
    assert plan.survey.images == (1 if file == "p1.txt" else 2)
    named = PathNames(here)(prepared.manifest.prompts_from[0].file)
    assert named == (file if not file.startswith("..") else "…/p[1-2].txt")


def test_a_file_whose_own_name_has_brackets_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "p[1].txt").write_text("a fox")
    (tmp_path / "p1.txt").write_text("a hare\nan owl")
    given = {"name": "cats", "model": "instant", "output": "out", "prompts_from": "p[1].txt"}
    (tmp_path / "cats.yaml").write_text(json.dumps(given))
    assert plan_submission(prepare(tmp_path / "cats.yaml", Settings()), Settings()).survey.images == 1


def test_an_output_whose_path_is_a_pattern_is_said_to_be_one(tmp_path: Path) -> None:
    given = {"name": "cats", "model": "instant", "output": str(tmp_path / "[v2]"), "prompts": ["a cat"]}
    (tmp_path / "cats.yaml").write_text(json.dumps(given))
    assert "takes * ? [ in a path for a pattern" in prepare(tmp_path / "cats.yaml", Settings()).remark
