"""Where an export goes: it is there whole or not at all, and never over something else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobs.errors import OutputError
from producer.export.target import appearing, check_free


def test_a_target_appears_at_the_end_also_where_an_empty_folder_stands(tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()
    with appearing(target) as hidden:
        hidden.mkdir()
        (hidden / "one").write_text("1")
        assert not any(target.iterdir())
    assert {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()} == {Path("new/one")}


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError, "No space left.*free some space"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), OutputError, "Permission denied.*another place"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_nothing_is_left_of_a_target_that_was_not_finished(
    tmp_path: Path, error: BaseException, raised: type[BaseException], message: str | None, folder: bool
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(raised, match=message), appearing(place / "new") as hidden:
        if folder:
            hidden.mkdir()
            (hidden / "one").write_text("1")
        else:
            hidden.write_text("1")
        raise error
    assert not list(place.iterdir())


@pytest.mark.parametrize("folder", [True, False])
def test_what_was_put_in_a_targets_place_meanwhile_stays(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "new"
    with pytest.raises(OutputError, match="new: cannot be written"), appearing(target) as hidden:
        if folder:
            hidden.mkdir()
            target.mkdir()
            (target / "theirs").write_text("2")
        else:
            hidden.write_text("1")
            target.write_text("2")
    assert {file.read_text() for file in tmp_path.rglob("*") if file.is_file()} == {"2"}


def test_a_target_in_the_way_or_nowhere_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    check_free(tmp_path / "empty", output, folder=True)
    check_free(tmp_path / "new", output, folder=False)
    for target, folder, wrong in [
        (output, True, "is the export's own source"),
        (output / "new", True, "is inside the output"),
        (tmp_path, True, "already exists"),
        (tmp_path / "file", True, "already exists"),
        (tmp_path / "file", False, "already exists"),
        (tmp_path / "empty", False, "a file that is not there yet"),
        (tmp_path / "dangling", True, "already exists"),
        (tmp_path / "no/new", True, "there is no folder"),
        (tmp_path / "file/new", True, "there is no folder"),
    ]:
        with pytest.raises(OutputError, match=wrong):
            check_free(target, output, folder=folder)
