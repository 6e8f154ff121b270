from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.model_files.pipeline_folder import folder_of, painted_multiple, wanted_files
from jobs.pipelines.pipeline_class import Folder
from jobs.pipelines.pipelines import find_pipeline


def reader(files: dict[str, Any]) -> Callable[[str], Any]:
    return lambda name: files[name]


VAE = {"block_out_channels": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("name", "files", "folder"),
    [
        ("FluxPipeline", {"vae/config.json": VAE}, Folder(8, (1024, 1024))),
        ("FluxPipeline", {"vae/config.json": {"block_out_channels": [1, 2]}}, Folder(2, (256, 256))),
        ("FluxPipeline", {}, Folder()),
        (
            "StableDiffusionXLPipeline",
            {"vae/config.json": VAE, "unet/config.json": {"sample_size": 64}},
            Folder(8, (512, 512)),
        ),
        (
            "StableDiffusionXLPipeline",
            {"vae/config.json": VAE, "unet/config.json": {}},
            Folder(8, (1024, 1024)),
        ),
        ("StableDiffusionXLPipeline", {"vae/config.json": VAE}, Folder(8, None)),
        (
            "QwenImagePipeline",
            {"vae/config.json": {"temperal_downsample": [False, True, True]}},
            Folder(8, (1024, 1024)),
        ),
        ("IFPipeline", {"unet/config.json": {"sample_size": 64}}, Folder(1, (64, 64))),
        ("PRXPipeline", {"model_index.json": {"default_sample_size": 256}}, Folder(None, (256, 256))),
        ("PRXPipeline", {"model_index.json": {}, "vae/config.json": VAE}, Folder(8, (512, 512))),
        ("SanaPipeline", {}, Folder(None, (1024, 1024))),
        (
            "HunyuanImagePipeline",
            {"vae/config.json": {"spatial_compression_ratio": 32}},
            Folder(32, (2048, 2048)),
        ),
        (
            "StableDiffusion3Pipeline",
            {
                "vae/config.json": VAE,
                "transformer/config.json": {"sample_size": 128},
                "scheduler/scheduler_config.json": {"use_dynamic_shifting": True},
            },
            Folder(8, (1024, 1024), True),
        ),
    ],
)
def test_the_configurations_say_scale_size_and_shift(
    name: str, files: dict[str, Any], folder: Folder
) -> None:
    pipeline = find_pipeline(name)
    assert folder_of(pipeline, reader(files)) == folder
    assert {*files} <= {*wanted_files(pipeline)}


def test_a_size_that_no_picture_may_have_is_none() -> None:
    flux = find_pipeline("FluxPipeline")
    assert painted_multiple(flux, Folder(8, (1024, 1024))) == (1024, 1024)
    assert painted_multiple(flux, Folder(8, (1000, 1024))) is None
    assert painted_multiple(flux, Folder()) is None
