"""jobs.pipelines.pipelines and jobs.model_files.pipeline_folder say of real pipelines what these do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.model_files.pipeline_folder import folder_of
from jobs.pipelines.pipelines import find_pipeline
from jobs.request import ImageRequest
from tests.tiny.families import FAMILIES

_SIZED = [
    name
    for name, family in FAMILIES.items()
    if "pixels" not in find_pipeline(family.class_name).size["default"]
    and name not in ("StableDiffusionPipeline", "PRXPixelPipeline")
]
"""Those whose own size follows from their configurations."""
_MOST = 128


def configurations(pipe: Any) -> Callable[[str], Any]:
    """What `jobs.model_files.pipeline_folder` reads of a saved pipeline, of one in memory."""

    def read(name: str) -> Any:
        component = name.partition("/")[0]
        config = pipe.config if component == "model_index.json" else getattr(pipe, component).config
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}

    return read


@pytest.mark.parametrize("name", FAMILIES)
def test_the_scale_of_latents_and_the_names_of_the_call_are_the_pipelines(name: str) -> None:
    family = FAMILIES[name]
    pipe, known = family.build(), find_pipeline(family.class_name)
    folder = folder_of(known, configurations(pipe))
    scale = getattr(pipe, "vae_scale_factor", getattr(pipe, "vae_scale_factor_spatial", folder.scale))
    assert folder.scale == scale
    assert family.height % known.multiple(folder) == 0
    assert family.arguments.keys() <= known.arguments.keys()
    request = ImageRequest(prompt="a fox", seed=1, model="m", revision="r")
    inspect.signature(pipe.__call__).bind(**known.call_arguments(request))


@pytest.mark.parametrize("name", _SIZED)
def test_the_size_of_a_picture_that_is_asked_for_none_is_the_pipelines(name: str) -> None:
    family = FAMILIES[name]
    pipe, known = family.build(), find_pipeline(family.class_name)
    folder = folder_of(known, configurations(pipe))
    assert folder.size is not None
    if max(folder.size) > _MOST:
        # Painting it would take a minute: the attribute is what the call multiplies by the scale.
        if name == "PRXPipeline":
            side = pipe.get_default_resolution()
        else:
            sample = getattr(pipe, "default_sample_size", None)
            side = pipe.vae_scale_factor * (pipe.transformer.config.sample_size if sample is None else sample)
        assert folder.size == (side, side)
        return
    pipe.set_progress_bar_config(disable=True)
    [picture] = pipe(
        "a fox",
        num_inference_steps=1,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **family.arguments,
    ).images
    assert picture.shape[:2] == folder.size
