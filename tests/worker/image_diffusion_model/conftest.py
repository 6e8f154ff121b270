"""Pipelines and models that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.tiny.stable_diffusion import stable_diffusion
from tests.worker.image_diffusion_model.models import model_of
from worker.diffusion.build_scheduler import build_scheduler
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.shapes_random import build


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def small() -> StableDiffusionPipeline:
    """A smaller one, for many images."""
    pipeline = stable_diffusion()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def model(pipe: Any) -> ImageDiffusionModel:
    return model_of(pipe)


@pytest.fixture(scope="module")
def random_model(small: Any) -> ImageDiffusionModel:
    """The same parts, with both schedulers made of the pipeline's own."""
    return ImageDiffusionModel(
        *(getattr(small, name) for name in ("vae", "tokenizer", "text_encoder", "unet")),
        build_scheduler("LMS", small.scheduler.config),
        build_scheduler("DDIM", small.scheduler.config),
        device="cpu",
        precision="fp32",
    )
