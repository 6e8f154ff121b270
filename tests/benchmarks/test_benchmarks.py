"""Every benchmark runs at toy size and ends in one line of JSON; what its figures are is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.warm_python import WarmPython

FOLDER = Path(__file__).parents[2] / "benchmarks"
NO_SCRIPTS = {"sizes.py", "timed_farm.py"}
"""What benchmarks share."""
ELSEWHERE = {"gpu.py", "gpu_pipelines.py"}
"""test_gpu.py and test_gpu_pipelines.py run them."""
TOYS: dict[str, tuple[list[str], set[str]]] = {
    "engine.py": ([], {"calls_ratio", "slots_ratio", "speed_vs_grouped", "speed_vs_one", "uniform"}),
    "fidelity.py": ([], {"one_all", "two_all", "count_all", "images_per_s", "lms"}),
    "interception.py": (
        [],
        {"ms_per_image_step", "launches_per_image_step", "forwards_vs_tables", "speed_vs_one"},
    ),
    "long_run.py": (["--model", "instant"], {"rss_ratio", "fds_first", "fds_last", "keys_left_without_ttl"}),
    "machinery.py": ([], {"images_per_s", "exact", "flower_answered", "plan_seconds"}),
    "recovery.py": ([], {"kill_to_claim", "sigterm_to_exit", "redis_to_image"}),
    "schedulers.py": (["--model", "shapes-random"], {"compiled", "max_abs_diff"}),
    "submit.py": ([], {"seconds", "bytes_per_prompt", "plan_seconds", "speed_vs_delay"}),
    "system.py": ([], {"ratio", "bare_vs_diffusers", "images_per_s"}),
}

PAINTING = {"engine.py", "fidelity.py", "interception.py", "schedulers.py", "system.py"}
"""They import torch and diffusers, which takes longer than a toy."""
AS_A_SCRIPT = "import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv.pop(0))"
AS_A_SCRIPT += "; runpy.run_path(sys.argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def painter() -> WarmPython:
    """A Python that has imported what pictures take."""
    return WarmPython(
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "worker.renderers.diffusion_renderer",
        "worker.renderers.pipelines",
    )


def test_every_script_is_run() -> None:
    assert {file.name for file in FOLDER.glob("*.py")} == {*TOYS, *NO_SCRIPTS, *ELSEWHERE}


@pytest.mark.parametrize("script", TOYS)
def test_a_toy_run_ends_in_its_figures(script: str, tmp_path: Path, painter: WarmPython) -> None:
    options, figures = TOYS[script]
    if script == "machinery.py":
        options = ["--flower-port", str(free_port())]
    arguments = [str(FOLDER / script), "--toy", *options]
    if script in PAINTING:
        ran = painter.run(AS_A_SCRIPT, FOLDER, *arguments, cwd=tmp_path, env=os.environ, timeout=600)
    else:
        command = [sys.executable, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600, check=False)
    assert ran.stdout, ran.stderr
    assert figures <= json.loads(ran.stdout.splitlines()[-1]).keys(), ran.stderr
    # A toy is too small for a bound on speed or memory; 2 is what wrong options give.
    assert ran.returncode in (0, 1), ran.stderr
