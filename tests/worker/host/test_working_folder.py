"""A worker is not started in a folder that has been removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.settings import Settings
from worker.host.imagemill_worker import run_worker


def test_a_working_folder_that_was_removed_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(SettingsError, match="has been removed: `cd` to one that is there"):
        run_worker(Settings(), gpu_choice="none")
