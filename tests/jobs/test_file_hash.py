"""A file's hash is that of its bytes; any change shows in its state."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jobs.file_hash import file_sha256, file_state


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_path_and_descriptor_give_the_same_state_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    before = file_state(path)
    with path.open("rb") as file:
        assert file_state(file.fileno()) == before
        path.write_bytes(b"more")
        assert file_state(file.fileno()) != before
        (tmp_path / "y").write_bytes(b"more")
        (tmp_path / "y").replace(path)
        assert file_state(file.fileno()) != file_state(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for read in (file_sha256, file_state):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
