"""The benchmarks that paint run at toy size, by forks of a Python that has imported what takes long."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.benchmarks.toys import FOLDER, PAINTING, TOYS, check_figures
from tests.warm_python import warm_painter


@pytest.mark.parametrize("script", sorted(PAINTING))
def test_a_toy_run_ends_in_its_figures(script: str, tmp_path: Path) -> None:
    options, figures = TOYS[script]
    command = [sys.executable, FOLDER / script, "--toy", *options]
    ran = warm_painter().call(command, cwd=tmp_path, env=os.environ, timeout=600)
    check_figures(ran, figures)


def test_a_toy_of_each_pipeline_ends_in_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "gpu_pipelines.py", "--toy", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ran = warm_painter().call(
        [*command, "--slots", "4", "--steps", "2"], cwd=tmp_path, env=environment, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    models = json.loads(ran.stdout.splitlines()[-1])["models"]
    assert list(models) == ["sdxl", "sd3", "flux"]
    for figures in models.values():
        assert (figures["identical"], figures["batching"], figures["slots"]) == (1.0, "exact", 4)
        assert set(figures["images_per_s"]) == {"interception", "diffusers, one by one"}
        rate = figures["share_of_ceiling"] * figures["images_per_s_ceiling"]
        assert rate == pytest.approx(figures["images_per_s"]["interception"])
