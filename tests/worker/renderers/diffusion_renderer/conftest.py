"""A model and a renderer, and each picture of the mix rendered alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.worker.renderers.diffusion_renderer.wanted import MIX, MODEL, paint
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipelines import load_model


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(*MODEL, "fp32", "cpu")
    torch.set_num_threads(before)


@pytest.fixture
def renderer(model: ImageDiffusionModel) -> DiffusionRenderer:
    return DiffusionRenderer(model)


@pytest.fixture(scope="module")
def alone(model: ImageDiffusionModel) -> dict[int, bytes]:
    """Each picture of the mix, rendered with no other."""
    renderer = DiffusionRenderer(model)
    found = {seed: picture for one in MIX for seed, picture in paint(renderer, [one]).items()}
    assert len(set(found.values())) == len(MIX)
    return found
