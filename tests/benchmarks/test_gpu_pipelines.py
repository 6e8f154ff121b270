"""The GPU benchmark of SDXL, SD3 and FLUX compiles, and knows the published sizes; its toy is elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

import gpu_pipelines
import pytest
import torch


def test_compiled_forwards_are_one_more_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = argparse.Namespace(
        device="cpu", toy=True, slots=4, steps=2, seconds=60.0, compile=True, channels_last=True
    )
    # torch traces as ever, and makes no C++ of it.
    with torch.compiler.set_stance("default", force_backend="eager"):
        figures = gpu_pipelines.measure("sdxl", options)
    torch._dynamo.reset()
    assert set(figures["images_per_s"]) == {
        "interception",
        "diffusers, one by one",
        "interception, compiled",
    }
    assert (figures["identical"], figures["identical_compiled"]) == (1.0, 1.0)
    assert figures["forward_s_compiled"] > 0


@pytest.mark.parametrize(
    ("name", "denoiser", "weights"),
    [
        ("sdxl", "unet", 2_567_463_684),
        ("sd3", "transformer", 2_028_328_000),
        ("flux", "transformer", 11_901_408_320),
    ],
)
def test_the_denoisers_are_as_large_as_the_published_ones(name: str, denoiser: str, weights: int) -> None:
    pipeline = gpu_pipelines.build(gpu_pipelines.MODELS[name], torch.device("meta"), torch.bfloat16)
    parameters = list(getattr(pipeline, denoiser).parameters())
    assert sum(each.numel() for each in parameters) == weights
    assert {each.dtype for each in parameters} == {torch.bfloat16}
    assert pipeline.scheduler.sigmas.dtype == torch.float32, "noise levels stay precise"
