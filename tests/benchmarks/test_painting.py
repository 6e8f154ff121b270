"""The benchmarks that paint run at toy size, by forks of a Python that has imported what takes long."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.benchmarks.toys import FOLDER, PAINTING, TOYS, check_figures
from tests.warm_python import WarmPython

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


@pytest.mark.parametrize("script", sorted(PAINTING))
def test_a_toy_run_ends_in_its_figures(script: str, tmp_path: Path, painter: WarmPython) -> None:
    options, figures = TOYS[script]
    arguments = (FOLDER / script, "--toy", *options)
    ran = painter.run(AS_A_SCRIPT, FOLDER, *arguments, cwd=tmp_path, env=os.environ, timeout=600)
    check_figures(ran, figures)


def test_a_toy_of_each_pipeline_ends_in_its_figures(tmp_path: Path, painter: WarmPython) -> None:
    script = FOLDER / "gpu_pipelines.py"
    options = ("--toy", "--device", "cpu", "--slots", "4", "--steps", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = painter.run(AS_A_SCRIPT, FOLDER, script, *options, cwd=tmp_path, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    models = json.loads(ran.stdout.splitlines()[-1])["models"]
    assert list(models) == ["sdxl", "sd3", "flux"]
    for figures in models.values():
        assert (figures["identical"], figures["batching"], figures["slots"]) == (1.0, "exact", 4)
        assert set(figures["images_per_s"]) == {"interception", "diffusers, one by one"}
        rate = figures["share_of_ceiling"] * figures["images_per_s_ceiling"]
        assert rate == pytest.approx(figures["images_per_s"]["interception"])
