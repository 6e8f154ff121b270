"""Flower's password from a file: a file that holds none must not open Flower to everybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "deploy" / "flowerconfig.py"


def read(secret: Path) -> subprocess.CompletedProcess[str]:
    """What the configuration says of a file that has Flower's password."""
    return subprocess.run(
        [sys.executable, CONFIG], env=os.environ | {"FLOWER_BASIC_AUTH_FILE": str(secret)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("held", ["", "\n", ":", "ann", "ann:", ":secret"])
def test_a_file_without_a_user_and_a_password_is_refused(held: str, tmp_path: Path) -> None:
    secret = tmp_path / "flower"
    secret.write_text(held)
    refused = read(secret)
    assert refused.returncode == 1
    assert refused.stderr == f"FLOWER_BASIC_AUTH_FILE = {secret}: must hold USER:PASSWORD\n"


def test_a_file_with_both_is_taken(tmp_path: Path) -> None:
    (tmp_path / "flower").write_text("ann:a:secret\n")
    assert read(tmp_path / "flower").returncode == 0
