"""Requests painted by any diffusers pipeline's own call, each by itself, at batch 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from transformers import PreTrainedModel

from jobs.errors import LatentsError, RenderError
from jobs.request import ImageRequest
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.pipeline_copy import denoisers, fork
from worker.diffusion.stand_ins import CallDenoiser, Denoiser, RememberedTexts, WatchedDecoder
from worker.diffusion.text_rules import text_rule_of


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """A picture as the pipeline gives it."""

    values: np.ndarray
    """float32 [H,W,3], 0..1."""
    finite: bool
    """Whether the decoded latents and the picture were finite."""

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H,W,3], rounded as diffusers rounds."""
        return np.asarray((self.values * 255).round(), dtype="uint8")


class Painter:
    """Paints requests with a pipeline. The pipeline itself is never called and keeps its state.

    Text encoders remember what they were given, so that images that share a prompt encode it once.
    """

    def __init__(self, pipeline: DiffusionPipeline, guidance: str | None) -> None:
        """guidance: the argument of the call that takes the guidance scale; None: it takes none."""
        self.pipeline = pipeline
        self._guidance = guidance
        self._parameters = inspect.signature(type(pipeline).__call__).parameters
        self.denoisers: Mapping[str, Any] = denoisers(pipeline)
        """The modules that are called in each step, by name."""
        self.spare_slots = max(
            (text_rule_of(module).spare_slots for module in self.denoisers.values()), default=0
        )
        """Slots of every forward that hold no image."""
        self._texts = RememberedTexts()

    def paint(
        self,
        request: ImageRequest,
        init_latents: np.ndarray | None = None,
        call: CallDenoiser | None = None,
        **others: Any,
    ) -> Painting:
        """The picture of a request.

        init_latents: [C,h,w], standard normal. call: what denoisers' calls go to; None: to the modules.
        others: further arguments of the pipeline's call. Raises what the pipeline raises, and RenderError for
        a picture of another size than was asked for.
        """
        finite: list[torch.Tensor] = []
        own = self._copy(call, finite)
        if request.scheduler != "default":
            own.scheduler = build_scheduler(request.scheduler, own.scheduler.config)
        given = self.arguments(own, request, init_latents)
        [values] = own(**{**given, **others, "output_type": "np"}).images
        size = values.shape[:2]
        if size != (request.height, request.width):
            raise RenderError(
                f"the pipeline painted {size[0]} x {size[1]} pixels, not {request.height} x {request.width}: "
                "ask for a size that it takes"
            )
        ended_well = all(bool(one) for one in finite) and bool(np.isfinite(values).all())
        return Painting(np.asarray(values, dtype="float32"), ended_well)

    def calls(self, request: ImageRequest, images: int, call: CallDenoiser) -> None:
        """Makes the denoisers' calls for several images of one request; the pictures are not decoded."""
        own = self._copy(call, [])
        given = self.arguments(own, request, None)
        count = next((name for name in _COUNTS if name in self._parameters), None)
        if count is not None:
            given[count] = images
        else:
            for name in ("prompt", "negative_prompt"):
                given |= {name: [given[name]] * images} if name in given else {}
        given["generator"] = [torch.Generator().manual_seed(seed) for seed in range(images)]
        own(**given, output_type="latent")

    def arguments(
        self, pipeline: DiffusionPipeline, request: ImageRequest, init_latents: np.ndarray | None
    ) -> dict[str, Any]:
        """The arguments of the pipeline's call for a request. Raises LatentsError if it takes no latents."""
        given: dict[str, Any] = {
            "prompt": request.prompt,
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.num_inference_steps,
            "generator": torch.Generator().manual_seed(request.seed),
        }
        if self._guidance is not None:
            given[self._guidance] = request.guidance_scale
        # An empty one is left out: SDXL then guides away from zeros, as in anyone's call of it. Where
        # `true_cfg_scale` guides, it is given, or the scale would be ignored.
        if request.negative_prompt or "true_cfg_scale" in given:
            given["negative_prompt"] = request.negative_prompt
        if init_latents is not None:
            given["latents"] = self._latents(pipeline, init_latents)
        return given

    def forget_texts(self) -> None:
        """Encodes every text anew from now on: the encoders' weights have changed."""
        self._texts.forget()

    def _copy(self, call: CallDenoiser | None, finite: list[torch.Tensor]) -> DiffusionPipeline:
        """A copy of the pipeline for one image."""

        def replace(name: str, component: Any) -> Any | None:
            if name in self.denoisers:
                return None if call is None else Denoiser(name, component, call)
            if isinstance(component, ModelMixin) and hasattr(component, "decode"):
                return WatchedDecoder(name, component, finite)
            if isinstance(component, PreTrainedModel) and "text_encoder" in name:
                return self._texts.encoder(name, component)
            return None

        return fork(self.pipeline, replace)

    def _latents(self, pipeline: DiffusionPipeline, init_latents: np.ndarray) -> torch.Tensor:
        """Initial latents as the call takes them: [1,C,h,w], or packed into a sequence of patches."""
        if "latents" not in self._parameters:
            raise LatentsError(f"init_latents: {type(pipeline).__name__} takes none: remove them")
        latents = torch.from_numpy(np.asarray(init_latents, dtype="float32"))[None]
        pack: Callable[..., torch.Tensor] | None = getattr(pipeline, "_pack_latents", None)
        return latents if pack is None else pack(latents, *latents.shape)


_COUNTS = ("num_images_per_prompt", "num_videos_per_prompt")
