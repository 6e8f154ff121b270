"""Every benchmark runs at toy size and ends in one line of JSON; what its figures are is not judged here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.toys import FOLDER, PAINTING, TOYS, check_figures
from tests.ports import free_port
from tests.warm_python import warm_imagemill

NO_SCRIPTS = {
    "painting.py",
    "published_pipelines.py",
    "sd14.py",
    "serve_output.py",
    "sizes.py",
    "timed_farm.py",
}
"""What benchmarks share."""
ELSEWHERE = {"gpu.py", "gpu_pipelines.py"}
"""test_gpu.py and test_painting.py run them."""
STARTED = {"machinery.py", "serve.py"}
"""Run as a user runs them, with all that they start; the others are forks (`tests.warm_python`)."""


def test_every_script_is_run() -> None:
    assert {file.name for file in FOLDER.glob("*.py")} == {*TOYS, *NO_SCRIPTS, *ELSEWHERE}


@pytest.mark.parametrize("script", [script for script in TOYS if script not in PAINTING])
def test_a_toy_run_ends_in_its_figures(script: str, tmp_path: Path) -> None:
    options, figures = TOYS[script]
    if script == "machinery.py":
        options = ["--flower-port", str(free_port())]
    command = [sys.executable, FOLDER / script, "--toy", *options]
    if script in STARTED:
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False)
    else:
        ran = warm_imagemill().call(command, cwd=tmp_path, env=os.environ, timeout=600)
    check_figures(ran, figures)
