"""The files of requests: verified, and safe from what happens to them afterwards."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from jobs.errors import InputError, OutputError
from jobs.inputs.inputs import KeptInputs, kept_path

CONTENTS = b"a lora" * 500_000
SHA256 = hashlib.sha256(CONTENTS).hexdigest()


@pytest.fixture
def kept(tmp_path: Path) -> KeptInputs:
    path = kept_path(tmp_path / "inputs", SHA256)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENTS)
    return KeptInputs(tmp_path / "inputs")


def overwrite(path: Path, contents: bytes) -> None:
    """Writes into the file itself, as `cp` does; a process that mapped it sees the change."""
    with path.open("r+b") as file:
        file.write(contents)


def test_a_copy_keeps_the_verified_bytes_when_its_file_is_written_again_or_removed(kept: KeptInputs) -> None:
    path = kept.path(SHA256)
    with kept.private_copy(SHA256) as copy:
        overwrite(path, b"another lora")
        assert copy.read_bytes() == CONTENTS
        path.unlink()
        assert copy.read_bytes() == CONTENTS
    assert not copy.exists()
    assert not copy.parent.exists()


def test_what_is_another_file_than_was_submitted_is_not_copied(kept: KeptInputs) -> None:
    overwrite(kept.path(SHA256), b"another lora")
    with pytest.raises(InputError, match=f"{SHA256}: is another file than was submitted: put it back"):
        kept.private_copy(SHA256).__enter__()
    with pytest.raises(InputError, match="is another file than was submitted"):
        kept.contents(SHA256)


def test_a_pipe_or_a_missing_file_is_refused_with_its_path(kept: KeptInputs) -> None:
    path = kept.path(SHA256)
    path.unlink()
    with pytest.raises(InputError, match=f"^{path}: is missing: put"):
        kept.private_copy(SHA256).__enter__()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"^{path}: is no plain"):
        kept.private_copy(SHA256).__enter__()
    with pytest.raises(InputError, match=r"^'\.\./x': is not a SHA-256"):
        kept.private_copy("../x").__enter__()


def test_a_folder_for_temporary_files_that_is_full_or_missing_is_no_fault_of_the_image(
    kept: KeptInputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"No such file or directory\): make room there, or set TMPDIR"):
        kept.private_copy(SHA256).__enter__()
