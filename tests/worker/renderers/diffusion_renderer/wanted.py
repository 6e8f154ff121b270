"""Requests of many settings, and what the renderer paints for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jobs.errors import ImagemillError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from tests.held_inputs import LATENTS, holding
from worker.engine.renderer import Bucket, Picture, Pipeline
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer

MODEL = ("shapes-random", "shapes-random-1")
BUCKET = Bucket(Pipeline(*MODEL, "fp32"), 32, 32, slots=16)
SMALL = replace(BUCKET, slots=8)


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    request: ImageRequest
    inputs: Inputs = NO_INPUTS


def wanted(seed: int, *, own_latents: bool = False, **settings: object) -> Wanted:
    request = ImageRequest(
        **{  # type: ignore[arg-type]
            "prompt": f"a star {seed}",
            "negative_prompt": "blurry",
            "seed": seed,
            "height": 32,
            "width": 32,
            "num_inference_steps": 3,
            "model": MODEL[0],
            "revision": MODEL[1],
            **settings,
        }
    )
    if not own_latents:
        return Wanted(request)
    start = np.random.default_rng(seed).standard_normal((4, 8, 8), dtype=np.float32)
    return Wanted(replace(request, init_latents=LATENTS), holding(start))


def latents_of(one: Wanted) -> np.ndarray | None:
    return None if one.request.init_latents is None else one.inputs.latents(one.request.init_latents)


MIX = [
    wanted(0, scheduler="LMS"),
    wanted(1, scheduler="DDIM", guidance_scale=1.0),
    wanted(2, scheduler="Euler a", num_inference_steps=5),
    wanted(3, scheduler="UniPC", num_inference_steps=4, guidance_scale=3.0, own_latents=True),
    wanted(4, scheduler="DPM++ 2M SDE", guidance_scale=1.0, num_inference_steps=6),
    wanted(5, scheduler="PNDM", guidance_scale=12.0, negative_prompt=""),
    wanted(6, scheduler="LMS", guidance_scale=1.0, num_inference_steps=1, own_latents=True),
]


class Source:
    """Gives one wave of images after the other; a wave enters as slots allow, the next a step later."""

    def __init__(self, *waves: Sequence[Wanted]) -> None:
        self.waves = [list(wave) for wave in waves]

    def take(self, free_slots: int) -> list[Wanted]:
        if not self.waves:
            return []
        taken: list[Wanted] = []
        wave = self.waves[0]
        while wave and (2 if wave[0].request.guided else 1) <= free_slots:
            taken.append(wave.pop(0))
            free_slots -= 2 if taken[-1].request.guided else 1
        if not taken and not wave:
            del self.waves[0]
        return taken

    def upcoming(self, count: int) -> list[Wanted]:
        return [one for wave in self.waves for one in wave][:count]


Found = dict[int, Picture | ImagemillError]


def render(
    renderer: DiffusionRenderer, *waves: Sequence[Wanted], bucket: Bucket = BUCKET, stop: object = None
) -> Found:
    never = bool if stop is None else stop
    found: Found = {}
    for outcomes in renderer.render(bucket, Source(*waves), never):  # type: ignore[arg-type]
        for asked, result in outcomes:
            assert asked.request.seed not in found, "delivered twice"
            found[asked.request.seed] = result
    return found


def paint(renderer: DiffusionRenderer, *waves: Sequence[Wanted], bucket: Bucket = BUCKET) -> dict[int, bytes]:
    found = render(renderer, *waves, bucket=bucket)
    assert all(isinstance(picture, Picture) and picture.finite for picture in found.values())
    return {seed: picture.pixels.tobytes() for seed, picture in found.items()}  # type: ignore[union-attr]


def slots_seen(model: ImageDiffusionModel, act: Callable[[], object]) -> dict[str, list[int]]:
    """How many slots each call of a part had."""
    seen: dict[str, list[int]] = {"text": [], "unet": [], "vae": []}
    hooks = [
        model.text_encoder.register_forward_pre_hook(lambda m, args: seen["text"].append(len(args[0]))),
        model.unet.register_forward_pre_hook(lambda m, args: seen["unet"].append(len(args[0]))),
        model.vae.decoder.register_forward_pre_hook(lambda m, args: seen["vae"].append(len(args[0]))),
    ]
    try:
        act()
    finally:
        for hook in hooks:
            hook.remove()
    return seen
