"""LoRAs by their names in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import ManifestError
from producer.manifest.lora_folder import LoraFolder


@pytest.fixture
def folder(tmp_path: Path) -> LoraFolder:
    for name in ("ink", "styles/grain.v2", "old/moss", "new/moss", "oak", "old/oak"):
        file = tmp_path / f"{name}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "ink.txt").touch()
    (tmp_path / "old" / "again").symlink_to(tmp_path)
    return LoraFolder(tmp_path)


def missing(folder: LoraFolder, name: str) -> str:
    with pytest.raises(ManifestError) as caught:
        folder.find(name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ink", "grain.v2", "styles/grain.v2", "new/moss", "old/oak"])
def test_a_file_is_found_by_its_own_name_and_with_the_folders_before_it(
    folder: LoraFolder, name: str
) -> None:
    assert folder.find(name) == next(folder.path.rglob(f"{name}.safetensors"))


def test_two_files_of_one_name_are_refused_with_longer_names(folder: LoraFolder) -> None:
    assert missing(folder, "moss").endswith("have that name (new/moss, old/moss): write new/moss or old/moss")
    assert missing(folder, "oak").endswith("have that name (oak, old/oak): rename one")


def test_a_name_that_is_not_there_is_told_with_those_that_are_close(folder: LoraFolder) -> None:
    assert missing(folder, "Inc").endswith("did you mean ink?")
    assert "(there are grain.v2, ink, moss, oak)" in missing(folder, "watercolour")


def test_an_empty_folder_and_one_that_is_not_there_say_so(tmp_path: Path) -> None:
    assert "there is no .safetensors file in" in missing(LoraFolder(tmp_path), "ink")
    assert "no such folder: correct it" in missing(LoraFolder(tmp_path / "none"), "ink")
