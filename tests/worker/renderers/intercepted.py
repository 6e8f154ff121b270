"""Images for a renderer by interception, and the pictures that come of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from jobs.errors import ImagemillError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from tests.held_inputs import LATENTS, holding
from worker.engine.renderer import Bucket, Picture, Pipeline, Renderer
from worker.renderers.pipeline_renderer import PipelineRenderer

CPU = torch.device("cpu")
BUCKET = Bucket(Pipeline("tiny", "1", "fp32"), 64, 64, slots=8)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    request: ImageRequest
    inputs: Inputs = NO_INPUTS


def wanted(seed: int, **settings: Any) -> Wanted:
    asked = {
        "prompt": f"a star {seed}",
        "seed": seed,
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "scheduler": "default",
        "model": "tiny",
        "revision": "1",
        **settings,
    }
    return Wanted(ImageRequest(**asked))


MIX = [
    wanted(0, num_inference_steps=4),
    wanted(1, scheduler="DDIM", guidance_scale=1.0),
    wanted(2, scheduler="Euler a", num_inference_steps=3),
    wanted(3, negative_prompt="blurry, ugly"),
    wanted(4, scheduler="DPM++ 2M", guidance_scale=1.0, num_inference_steps=5),
    wanted(5, guidance_scale=2.0),
]


def beginning_with(latents: np.ndarray, one: Wanted) -> Wanted:
    """The image with these initial latents."""
    return Wanted(replace(one.request, init_latents=LATENTS), holding(latents))


class Source:
    """Gives images in their order, as many as fit."""

    def __init__(self, renderer: Renderer, images: Sequence[Wanted]) -> None:
        self.renderer, self.left = renderer, list(images)

    def take(self, free_slots: int) -> list[Wanted]:
        taken: list[Wanted] = []
        while self.left and (slots := self.renderer.slots(self.left[0].request)) <= free_slots:
            taken.append(self.left.pop(0))
            free_slots -= slots
        return taken

    def upcoming(self, count: int) -> list[Wanted]:
        return self.left[:count]


Found = dict[int, Picture | ImagemillError]


def render(
    renderer: PipelineRenderer,
    images: Sequence[Wanted],
    bucket: Bucket = BUCKET,
    stop: Callable[[], bool] = bool,
) -> Found:
    found: Found = {}
    for outcomes in renderer.render(bucket, Source(renderer, images), stop):
        for asked, result in outcomes:
            assert asked.request.seed not in found, "delivered twice"
            found[asked.request.seed] = result
    return found


def paint(renderer: PipelineRenderer, images: Sequence[Wanted], bucket: Bucket = BUCKET) -> dict[int, bytes]:
    found = render(renderer, images, bucket)
    assert all(isinstance(picture, Picture) and picture.finite for picture in found.values()), found
    return {seed: picture.pixels.tobytes() for seed, picture in found.items()}  # type: ignore[union-attr]


def outcomes(
    renderer: Renderer, bucket_of: Callable[[ImageRequest], Bucket], images: Sequence[Wanted]
) -> dict[int, Picture | ImagemillError]:
    """What comes of images by their seeds, bucket by bucket."""
    found: dict[int, Picture | ImagemillError] = {}
    for bucket in dict.fromkeys(bucket_of(one.request) for one in images):
        together = [one for one in images if bucket_of(one.request) == bucket]
        for step in renderer.render(bucket, Source(renderer, together), lambda: False):
            found |= {asked.request.seed: result for asked, result in step}
    return found


def pixels_of(found: Mapping[int, Picture | ImagemillError]) -> dict[int, bytes]:
    """The pictures' bytes; fails where an image has none, or one with numbers that are none."""
    assert all(isinstance(one, Picture) and one.finite for one in found.values()), found
    return {seed: one.pixels.tobytes() for seed, one in found.items()}  # type: ignore[union-attr]
