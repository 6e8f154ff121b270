"""Images with pictures, of any family: as diffusers paints them, and in shared forwards."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from jobs.adapters import CONTROLNETS
from jobs.arguments import arguments_text
from jobs.inputs.input_picture import read_picture
from jobs.inputs.inputs import Inputs
from jobs.pipelines.pipeline_task import pictures_of
from jobs.request import ImageRequest
from tests.held_inputs import HeldInputs
from tests.tiny.controlnets import controlnet_of
from tests.tiny.families import FAMILIES
from tests.tiny.from_pictures import FROM_PICTURES
from tests.worker.renderers.intercepted import wanted
from worker.diffusion.build_scheduler import scheduler_like
from worker.diffusion.interception import Hub, painted
from worker.diffusion.painters import Controlnets, Painters
from worker.renderers.learning import Learned, learn_and_prove, sample_of

PHOTO, OTHER, MASK, EDGES = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
CONTROLNET = CONTROLNETS.of_text('[{"name":"edges","revision":"1","scale":0.7}]')
MASKED = (slice(16, 48), slice(8, 40))
"""The part of MASK that is white."""
BUILT = {**FAMILIES, **FROM_PICTURES}
"""Every tiny pipeline, those that paint from pictures only too."""


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(file, "png")
    return file.getvalue()


def _mask() -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[MASKED] = 255
    return mask


INPUTS = HeldInputs(
    files={
        sha256: _png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))
        for seed, sha256 in enumerate((PHOTO, OTHER, EDGES))
    }
    | {MASK: _png(_mask())}
)


def pictured(family: str, task: str, seed: int, **settings: Any) -> ImageRequest:
    """A request of a task; even seeds are guided, and have other pictures and strengths than odd ones."""
    pictures = {"image": (PHOTO, OTHER)[seed % 2], "mask_image": MASK, "control_image": EDGES}
    own: dict[str, Any] = {name: pictures[name] for name in task.split("+") if name}
    if "image" in own:
        own["strength"] = (0.6, 1.0)[seed % 2]
    if "control_image" in own:
        own |= {"controlnet": CONTROLNET, "controlnet_conditioning_scale": 0.9}
    arguments = arguments_text(BUILT[family].arguments)
    scale = 5.0 if seed % 2 == 0 else 1.0
    asked = {"guidance_scale": scale, "num_inference_steps": 2 + seed % 2, "arguments": arguments}
    return wanted(seed, **{**asked, **own, **settings}).request


class Model:
    """A tiny model with its painters, and what was learned of its tasks."""

    def __init__(self, family: str, *, controlled: bool = False) -> None:
        self.family = family
        self.pipeline = BUILT[family].build()
        beside = {"edges": controlnet_of(self.pipeline)} if controlled else {}
        self.controlnets = Controlnets(beside, ("1",) * len(beside))
        self.painters = Painters(self.pipeline, self.controlnets)
        self._learned: dict[tuple[str, ...], Learned] = {}

    def learned(self, request: ImageRequest) -> Learned:
        """How images with the request's pictures share forwards."""
        pictures = pictures_of(request)
        if pictures not in self._learned:
            painter = self.painters.of(request)
            sample = sample_of(painter, pictures, request)
            self._learned[pictures] = learn_and_prove(painter, sample)
        return self._learned[pictures]

    def paint(
        self, requests: Sequence[ImageRequest], slots: int = 8, inputs: Inputs = INPUTS
    ) -> tuple[dict[int, np.ndarray], int]:
        """The pictures [H,W,3] of requests that enter together, by their seeds; the number of forwards."""
        hub: Hub[int] = Hub({}, slots, spare=self.painters.own.spare_slots)
        waiting, found = list(requests), {}
        try:
            while len(found) < len(requests):
                while waiting and hub.free_slots:
                    request = waiting.pop(0)
                    paint = partial(self.painters.of(request).paint, request, inputs)
                    hub.start(request.seed, paint, self.learned(request).rules)
                if hub.running:
                    hub.forward()
                found |= {seed: painted(result).values for seed, result in hub.finished()}
        finally:
            hub.close()
        return found, hub.forwards


def by_diffusers(
    model: Model, request: ImageRequest, prepared: Callable[[Any], Mapping[str, Any]] = lambda _pipeline: {}
) -> np.ndarray:
    """The picture [H,W,3] that diffusers' own pipeline of the request's task paints; what its mask keeps is
    the original's.

    prepared: makes a pipeline ready, and gives further arguments of its call.
    """
    kind = model.painters.kind(request)
    pipeline = _new_pipeline(model, kind.name)
    if request.scheduler != "default":
        pipeline.scheduler = scheduler_like(request.scheduler, pipeline.scheduler)
    given = [setting for setting in kind.pictures if getattr(request, setting) is not None]
    pictures = {setting: by_call(request, setting) for setting in given}
    own: Mapping[str, Any] = {kind.pictures[setting]: picture for setting, picture in pictures.items()}
    generator = torch.Generator().manual_seed(request.seed)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)  # what some draw from when they encode a picture
        call = {
            **kind.call_arguments(request),
            **own,
            **prepared(pipeline),
            "generator": generator,
            "output_type": "np",
        }
        values = np.asarray(pipeline(**call)[0][0])
    if "mask_image" in pictures:
        shade = np.asarray(pictures["mask_image"], "float32")[..., None] / 255
        values = values * shade + np.asarray(pictures["image"], "float32") / 255 * (1 - shade)
    return values


def by_call(request: ImageRequest, setting: str) -> Image.Image:
    """A picture of the request as a call gets it."""
    contents = INPUTS.contents(getattr(request, setting))
    return read_picture(contents, request.height, request.width, "crop", mask=setting == "mask_image")


def _new_pipeline(model: Model, class_name: str) -> Any:
    import diffusers

    built = BUILT[model.family].build()
    kind: Any = getattr(diffusers, class_name)
    if type(built) is kind:
        made: DiffusionPipeline = built
    else:
        beside = [*model.controlnets.modules.values()] if "ControlNet" in class_name else []
        parts = {name: part for name, part in built.components.items() if name in _parameters(kind)}
        parts |= {"controlnet": beside[0]} if beside else {}
        left_out = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        parts |= {name: value for name, value in left_out.items() if name in _parameters(kind)}
        made = kind(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def _parameters(kind: Any) -> frozenset[str]:
    import inspect

    return frozenset(inspect.signature(kind).parameters)
