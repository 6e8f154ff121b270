"""Requests painted by any diffusers pipeline's own call, each by itself, at batch 1."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from transformers import PreTrainedModel

from jobs.errors import LatentsError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.pipelines.pipeline_class import Folder, PipelineClass
from jobs.pipelines.pipeline_task import troubles
from jobs.pipelines.pipelines import find_pipeline
from jobs.request import ImageRequest
from worker.diffusion.build_scheduler import scheduler_like
from worker.diffusion.given_pictures import GivenPictures
from worker.diffusion.host_timesteps import read_on_the_host
from worker.diffusion.lms_coefficients import LmsCoefficients
from worker.diffusion.pipeline_copy import denoisers, fork
from worker.diffusion.pipeline_embeds import encoders_of, with_embeds
from worker.diffusion.stand_ins import CallDenoiser, Denoiser, RememberedTexts, WatchedAutoencoder
from worker.diffusion.task_pipeline import inpainting_config
from worker.diffusion.text_rules import text_rule_of
from worker.diffusion.watched_tokenizers import TextCuts


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """A picture as the pipeline gives it."""

    values: np.ndarray
    """float32 [H,W,3], 0..1."""
    finite: bool
    """Whether the decoded latents and the picture were finite."""
    prompt_cut: str | None = None
    """What no text encoder got of the prompt; None where one got all of it."""

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H,W,3], rounded as diffusers rounds; what is not finite is black or white."""
        values = self.values if self.finite else np.nan_to_num(self.values, posinf=1.0, neginf=0.0).clip(0, 1)
        return np.asarray((values * 255).round(), dtype="uint8")


class Painter:
    """Paints requests with a pipeline. The pipeline itself is never called and keeps its state.

    Text encoders remember what they were given, so that images that share a prompt encode it once.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        kind: PipelineClass | None = None,
        model: PipelineClass | None = None,
        texts: RememberedTexts | None = None,
    ) -> None:
        """kind: of the pipeline; None: that of a model. model: the class of the model whose task it paints;
        None: its own. texts: what several painters remember together.

        Raises ModelError for a pipeline of a class that is not rendered.
        """
        self.pipeline = pipeline
        self.kind = find_pipeline(type(pipeline).__name__) if kind is None else kind
        """What is known of the pipeline's class."""
        self._model = self.kind if model is None else model
        self._controlnets = len(getattr(getattr(pipeline, "controlnet", None), "nets", (None,)))
        self._parameters = inspect.signature(type(pipeline).__call__).parameters
        scale = getattr(pipeline, "vae_scale_factor", None)
        self._folder = Folder(scale=scale if isinstance(scale, int) else None)
        self.denoisers: Mapping[str, Any] = denoisers(pipeline)
        """The modules that are called in each step, by name."""
        self.spare_slots = max(
            (text_rule_of(module).spare_slots for module in self.denoisers.values()), default=0
        )
        """Slots of every forward that hold no image."""
        self._texts = RememberedTexts() if texts is None else texts
        self._coefficients = LmsCoefficients()

    def paint(
        self,
        request: ImageRequest,
        inputs: Inputs = NO_INPUTS,
        call: CallDenoiser | None = None,
    ) -> Painting:
        """The picture of a request; raises RenderError for settings that the pipeline's class does not take.

        inputs: where the files are that the request names. call: what denoisers' calls go to; None: to the
        modules.
        What a mask keeps is the original's, not what the autoencoder makes of it.
        Raises what the pipeline raises, InputError and LatentsError for files that it does not take, and
        RenderError for a picture of another size than was asked for.
        """
        trouble = next(troubles(self._model, request.to_mapping(), self._folder), None)
        if trouble is not None:
            raise RenderError(str(trouble))
        pictures = GivenPictures.of(request, self.kind, inputs)
        finite: list[torch.Tensor] = []
        cuts = TextCuts()
        own = self._copy(call, request.seed, finite, cuts)
        given = self._arguments(own, request, pictures)
        told = partial(cuts.told, request)
        if request.own_embeds:
            texts = encoders_of(own)
            given = with_embeds(given, own.config, texts.of(request))
            told = partial(texts.told, request)
        if request.init_latents is not None:
            if request.image is not None:
                raise LatentsError(
                    "init_latents: the image gives the latents to begin with: remove one of them"
                )
            given["latents"] = self._initial_latents(own, inputs.latents(request.init_latents))
        with _attention_kept(self.denoisers.values()) if call is None else nullcontext():
            [values] = own(**given, output_type="np")[0]
        values = _opaque(np.asarray(values))
        size = values.shape[:2]
        if size != (request.height, request.width):
            raise RenderError(
                f"the pipeline painted {size[0]} x {size[1]} pixels, not {request.height} x {request.width}: "
                "ask for a size that it takes"
            )
        ended_well = all(bool(one) for one in finite) and bool(np.isfinite(values).all())
        painted = pictures.laid_over(np.asarray(values, dtype="float32"))
        return Painting(painted, ended_well, told())

    def calls(
        self, request: ImageRequest, images: int, call: CallDenoiser, inputs: Inputs = NO_INPUTS
    ) -> None:
        """Makes the denoisers' calls for several images of one request; what is painted is not looked at."""
        own = self._copy(call, request.seed, [], TextCuts())
        given = self._arguments(own, request, GivenPictures.of(request, self.kind, inputs))
        count = next((name for name in _COUNTS if name in self._parameters), None)
        if count is not None:
            given[count] = images
        else:
            for name in ("prompt", "negative_prompt"):
                given |= {name: [given[name]] * images} if name in given else {}
        given["generator"] = [torch.Generator().manual_seed(seed) for seed in range(images)]
        own(**given, output_type="np")

    def forget_texts(self) -> None:
        """Drops what text encoders gave so far: their weights have changed."""
        self._texts.forget()

    def _arguments(
        self, own: DiffusionPipeline, request: ImageRequest, pictures: GivenPictures
    ) -> dict[str, Any]:
        """The arguments of a copy's call; the copy gets the scheduler that the request names."""
        if request.scheduler != "default":
            own.scheduler = scheduler_like(request.scheduler, own.scheduler)
        scheduler = getattr(own, "scheduler", None)
        self._coefficients.remembered_by(scheduler)
        read_on_the_host(scheduler)
        return {
            **self.kind.call_arguments(request),
            **pictures.arguments(self.kind, self._controlnets),
            "generator": torch.Generator().manual_seed(request.seed),
        }

    def _copy(
        self, call: CallDenoiser | None, seed: int, finite: list[torch.Tensor], cuts: TextCuts
    ) -> DiffusionPipeline:
        """A copy of the pipeline for one image."""
        noise = torch.Generator().manual_seed(seed)

        def replace(name: str, component: Any) -> Any | None:
            if name in self.denoisers:
                config = inpainting_config(self.kind, self.pipeline, component)
                if call is None and config is None:
                    return None
                return Denoiser(name, component, _called if call is None else call, config)
            if isinstance(component, ModelMixin) and hasattr(component, "decode"):
                return WatchedAutoencoder(name, component, finite, noise)
            if isinstance(component, PreTrainedModel) and any(one in name for one in _REMEMBERED):
                return self._texts.encoder(name, component)
            return cuts.watched(name, component)

        return fork(self.pipeline, replace)

    def _initial_latents(self, own: DiffusionPipeline, init_latents: np.ndarray) -> torch.Tensor:
        """Initial latents as the call takes them: [1,C,h,w], or packed into a sequence of patches.

        Makes the copy compare them with the noise that it would draw: its call raises LatentsError where the
        shapes differ.
        """
        if "latents" not in self._parameters or not hasattr(own, "prepare_latents"):
            raise LatentsError(f"init_latents: {self.kind.name} takes none: remove them")
        latents = torch.from_numpy(np.asarray(init_latents, dtype="float32"))[None]
        pack: Callable[..., torch.Tensor] | None = getattr(own, "_pack_latents", None)
        if pack is not None and len(inspect.signature(pack).parameters) != 1 + latents.ndim:  # as FLUX.2's
            raise LatentsError(f"init_latents: {self.kind.name} packs them in a way of its own: remove them")
        given = latents if pack is None else pack(latents, *latents.shape)
        signature = inspect.signature(own.prepare_latents)
        # The copy is to hold `compared` and not the other way round: it would live until gc.
        draw, calling = type(own).prepare_latents, weakref.ref(own)

        def compared(*args: Any, **kwargs: Any) -> Any:
            prepare = partial(draw, calling())
            drawing = signature.bind(*args, **kwargs)
            drawing.arguments["latents"] = None
            state = drawing.arguments["generator"].get_state()
            drawn = prepare(*drawing.args, **drawing.kwargs)
            drawing.arguments["generator"].set_state(state)
            noise = drawn[0] if isinstance(drawn, tuple) else drawn
            if noise.shape != given.shape:
                raise LatentsError(
                    f"init_latents: of shape {init_latents.shape} they are {tuple(given.shape)} to "
                    f"the pipeline, which takes {tuple(noise.shape)} at this size: give latents of its "
                    "shape, or remove them"
                )
            return prepare(*args, **kwargs)

        own.prepare_latents = compared
        return given


@contextmanager
def _attention_kept(modules: Iterable[Any]) -> Iterator[None]:
    """Puts the attention of modules back: a call that replaces it does so only where it ends well."""
    # Some denoisers have no such processors.
    before = [(module, module.attn_processors) for module in modules if hasattr(module, "attn_processors")]
    try:
        yield
    finally:
        for module, processors in before:
            if module.attn_processors != processors:
                module.set_attn_processor(processors)


def _called(_name: str, module: Any, call: dict[str, Any]) -> Any:
    return module(**call)


def _opaque(values: np.ndarray) -> np.ndarray:
    """The colours [H,W,3] of a picture without transparency. Raises RenderError for one that has some."""
    if values.shape[-1] == 4:
        if values[..., 3].min() < 1 - 0.5 / 255:
            raise RenderError(
                "the picture has transparent parts, which no format here keeps: use another model"
            )
        return values[..., :3]
    return values


_REMEMBERED = ("text_encoder", "image_encoder")
"""Parts of the names of the components that give the same again for the same: a job has few pictures that
its IP-Adapter follows."""
_COUNTS = ("num_images_per_prompt", "num_videos_per_prompt")
"""What the argument is called that says how many pictures of a prompt are painted."""
