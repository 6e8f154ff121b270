"""The names that an output has for a manifest's files: equal for equal manifests, and without folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.wording import without_folders
from producer.manifest.manifest import Manifest
from producer.manifest.path_names import PathNames, known_paths, remember_paths
from producer.manifest.submitted import SubmittedManifest

FOLDER = Path("/mill/anna/work")


def kept(folder: Path, file: str = "p.txt", model: str = "instant") -> SubmittedManifest:
    """A submission of a manifest in `folder`, with absolute paths as early versions kept them."""
    path = str(folder / file)
    manifest = Manifest.from_json(
        {"name": "cats", "model": model, "output": str(folder / "out"), "prompts_from": [{"file": path}]}
    )
    return SubmittedManifest(manifest, files={path: "5f" * 32})


def test_a_file_below_the_manifest_is_called_by_its_path_from_there_and_any_other_by_its_name() -> None:
    names = PathNames(FOLDER)
    paths = [
        "/mill/anna/work/p/a.txt",
        "/mill/anna/work/p/*.txt",
        "/mill/bob/a.txt",
        "/vault/a.txt",
        "/vault/a.txt",
    ]
    assert [names(path) for path in paths] == [
        "p/a.txt", "p/*.txt", "…/a.txt", "…/a.txt (2)", "…/a.txt (2)",
    ]  # fmt: skip
    assert names.known["…/a.txt (2)"] == "/vault/a.txt"
    assert [names(name) for name in ("p/a.txt", "…/a.txt")] == ["p/a.txt", "…/a.txt"]
    assert [names.of_model(model) for model in ("shapes", "org/m", "/vault/tiny", "/mill/anna/work/m")] == [
        "shapes", "org/m", "./…/tiny", "./m",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["instant", "/mill/anna/work/tiny"])
def test_what_an_early_version_kept_is_compared_by_the_same_names(model: str) -> None:
    now = kept(FOLDER, model=model)
    told = SubmittedManifest.from_json(PathNames(FOLDER).of_manifest(now.to_json()))
    assert "anna" not in str(told.to_json()["files"])
    assert now.changes(now, FOLDER) == told.changes(now, FOLDER) == []
    assert told.changed_files({"/mill/anna/work/p.txt": "5f" * 32}, FOLDER) == []
    (change,) = told.changed_files({"/mill/anna/work/p.txt": "00" * 32}, FOLDER)
    assert str(change) == "/mill/anna/work/p.txt changed"


def test_another_file_is_still_told_from_the_same() -> None:
    told = SubmittedManifest.from_json(PathNames(FOLDER).of_manifest(kept(FOLDER).to_json()))
    found = [str(one) for one in told.changes(kept(FOLDER, "q.txt"), FOLDER)]
    assert found == ["prompts_from changed", "p.txt is gone", "/mill/anna/work/q.txt came"]


def test_a_manifest_that_moved_with_its_files_is_the_same() -> None:
    told = SubmittedManifest.from_json(PathNames(FOLDER).of_manifest(kept(FOLDER).to_json()))
    assert told.changes(kept(Path("/vault")), Path("/vault")) == []


def test_names_are_turned_back_into_paths_where_they_were_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = PathNames(FOLDER)
    told = SubmittedManifest.from_json(names.of_manifest(kept(FOLDER).to_json()))
    assert known_paths("/out", "cats") == {}
    remember_paths("/out", "cats", names)
    again = told.located(known_paths("/out", "cats"))
    assert again.files == {"/mill/anna/work/p.txt": "5f" * 32}
    assert again.manifest.prompts_from[0].file == "/mill/anna/work/p.txt"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/mill/anna/l.npy: not there", "…/l.npy: not there"),
        ("cannot read '/a/b c/d.npy' (/x/y)", "cannot read '…/b c/d.npy' (…/y)"),
        ("~/m/x and ~anna/m/x", "…/x and …/x"),
        ("see https://hub.co/org/m, 1/2 and/or org/m/x", "see https://hub.co/org/m, 1/2 and/or org/m/x"),
        ("File \"/usr/lib/python3/x.py\", line 3", "File \"…/x.py\", line 3"),
    ],
)  # fmt: skip
def test_a_reason_loses_its_folders_and_nothing_else(text: str, told: str) -> None:
    assert without_folders(text) == told
    assert without_folders(told) == told
