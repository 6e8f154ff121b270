"""One class of diffusers' pipelines: what its call takes, and what an image of it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from jobs.adapters import controlnets_of
from jobs.arguments import arguments_of
from jobs.pipelines.pipeline_argument import Argument
from jobs.schedulers import forwards

STABLE_DIFFUSION: Final = "StableDiffusionPipeline"
WEIGHTED: Final = frozenset({STABLE_DIFFUSION, "StableDiffusionXLPipeline"})
"""The classes whose texts may have weights, or more tokens than a window: their encoders are CLIP's."""
IP_ADAPTED: Final = WEIGHTED
"""The classes whose images may follow pictures by an IP-Adapter."""
_OF_THEIR_KIND: Final = WEIGHTED | {
    "StableDiffusionInpaintPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
}
"""The classes with the same encoders: models that inpaint, and the refiner."""
NO_GUIDANCE: Final = 1.0
"""What a request of a class without guidance says."""


class Pictured(Protocol):
    """What of a request decides which class paints it; `ImageRequest` is one."""

    @property
    def image(self) -> str | None: ...
    @property
    def mask_image(self) -> str | None: ...
    @property
    def control_image(self) -> str | None: ...


class Followed(Pictured, Protocol):
    """What of a request decides which pictures its calls are made of; `ImageRequest` is one."""

    @property
    def ip_adapter_image(self) -> str | None: ...


class Asked(Pictured, Protocol):
    """What of a request decides how many forwards it takes; `ImageRequest` is one."""

    @property
    def scheduler(self) -> str: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def arguments(self) -> str: ...
    @property
    def strength(self) -> float | None: ...


class Painted(Asked, Protocol):
    """What of a request a pipeline's call gets, noise aside; `ImageRequest` is one."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative_prompt(self) -> str: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def controlnet(self) -> str: ...
    @property
    def controlnet_conditioning_scale(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """What a model's own configurations say; what is None is not at hand."""

    scale: int | None = None
    """Pixels of a latent, each way."""
    size: tuple[int, int] | None = None
    """Height and width of a picture whose size is left to the model."""
    dynamic_shift: bool | None = None
    """Whether noise levels follow the picture's size."""


NOT_AT_HAND: Final = Folder()
"""Of a model without configurations."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a denoiser through its steps."""

    steps: str
    """The argument that counts its steps."""
    guided: int
    unguided: int
    """Slot evaluations of a step: slots of a call x calls, and the slots of a ControlNet's one call."""
    switch: tuple[str, float] | None
    """The argument that switches guidance on, and the value above which it does."""
    more: tuple[str, float] | None
    """The argument that adds a slot to each call, and the value above which it does."""
    widened: int = 1
    """Calls of a step that get that slot: the denoiser's and a ControlNet's."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How a class takes the strength of an image."""

    default: float
    steps: Literal["whole", "begun", "all"]
    """Which of num_inference_steps x strength are painted: whole steps, the last begun one too, or all steps
    whatever the strength."""

    def painted(self, steps: int, strength: float) -> int:
        """How many of `steps` are painted; diffusers' own formulas, to the bit."""
        if self.steps == "all":
            return steps
        if self.steps == "whole":
            return min(int(steps * strength), steps)
        return steps - int(max(steps - min(steps * strength, steps), 0))


@dataclass(frozen=True, slots=True)
class PipelineClass:
    """One class of diffusers that is rendered."""

    name: str
    task: str
    """Which of a request's pictures it paints from, as people call it: text-to-image, inpainting, …"""
    negative_prompt: bool
    """Whether its call takes one."""
    empty_negative_prompt: str | None
    """What its call gets where a request has an empty one."""
    guidance: str | None
    """The argument that a request's guidance_scale is; None for a class without guidance."""
    least_guidance: float
    num_inference_steps: int
    guidance_scale: float
    """The defaults of its call."""
    size: Mapping[str, Any]
    """As in pipelines.json: multiple, scale, default, sizes, unless, area."""
    schedulers: tuple[str, ...]
    stages: tuple[Stage, ...]
    arguments: Mapping[str, Argument]
    fixed: Mapping[str, tuple[Any, str]]
    """Arguments that are always given, and why no manifest may choose another value."""
    of: str | None = None
    """The model's class, of one that paints some images of it and is not of a model's own."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Of a model's class: from a task's key (`jobs.pipelines.pipeline_task`) to the class that paints it."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """From our settings `image`, `mask_image`, `control_image` to the arguments of its call."""
    sized: bool = True
    """Whether its call takes height and width; else the size is that of its pictures."""
    strength: Strength | None = None
    """None for a class that takes none."""
    conditioning_scale: float | None = None
    """The call's own controlnet_conditioning_scale; None for a class without a ControlNet."""
    controlnets: tuple[str, ...] = ()
    """diffusers' classes of ControlNets that it takes."""

    @property
    def takes_controlnet(self) -> bool:
        """Whether it has a ControlNet as a component."""
        return self.conditioning_scale is not None

    @property
    def weighted(self) -> bool:
        """Whether its texts may have weights, or more tokens than a window."""
        return self.name in _OF_THEIR_KIND or self.of in WEIGHTED

    @property
    def scheduler(self) -> str:
        """The one that a manifest gets which names none."""
        return "LMS" if self.name == STABLE_DIFFUSION else self.schedulers[0]

    def multiple(self, folder: Folder) -> int:
        """What height and width must be a multiple of."""
        multiple = self.size["multiple"]
        if "pixels" in multiple:
            return int(multiple["pixels"])
        scale = folder.scale if folder.scale is not None else int(self.size["scale"]["usual"])
        return math.lcm(8, scale**2 if "squared" in multiple else int(multiple["latents"]) * scale)

    def value(self, name: str, asked: Asked, arguments: Mapping[str, Any]) -> Any:
        """What an argument of the call is for an image."""
        if name == self.guidance:
            return asked.guidance_scale
        if name == "num_inference_steps":
            return asked.num_inference_steps
        return arguments[name] if name in arguments else self.arguments[name].default

    def steps(self, asked: Asked) -> int:
        """How many of its num_inference_steps are painted: fewer than all where it begins with an image."""
        if self.strength is None or asked.image is None:
            return asked.num_inference_steps
        strength = self.strength.default if asked.strength is None else asked.strength
        return self.strength.painted(asked.num_inference_steps, strength)

    def guided(self, asked: Asked) -> bool:
        """Whether any step of an image takes the cost of guidance."""
        arguments = arguments_of(asked.arguments)
        return any(self._on(stage.switch, asked, arguments) for stage in self.stages)

    def more_slots(self, asked: Asked) -> int:
        """Slots that an image's calls have besides those of guidance, at most."""
        arguments = arguments_of(asked.arguments)
        return max((int(self._on(stage.more, asked, arguments)) for stage in self.stages), default=0)

    def slot_evaluations(self, asked: Asked) -> int:
        """How many slots of forwards an image takes at most: steps x calls x slots of each of its stages.

        A pipeline's own scheduler is taken for one of one forward a step; guidance that a class leaves out at
        some steps (cfg_trunc_ratio, guidance_interval) counts at all of them.
        """
        arguments = arguments_of(asked.arguments)
        total = 0
        for stage in self.stages:
            own = stage.steps == "num_inference_steps"
            steps = self.steps(asked) if own else self.value(stage.steps, asked, arguments)
            calls = forwards(asked.scheduler, steps) if own else steps
            each = stage.guided if self._on(stage.switch, asked, arguments) else stage.unguided
            total += calls * (each + stage.widened * self._on(stage.more, asked, arguments))
        return total

    def _on(self, switch: tuple[str, float] | None, asked: Asked, arguments: Mapping[str, Any]) -> bool:
        return switch is not None and bool(self.value(switch[0], asked, arguments) > switch[1])

    def call_arguments(self, request: Painted) -> dict[str, Any]:
        """The keywords of the pipeline's call for a request; pictures, noise and form of the output aside."""
        arguments = arguments_of(request.arguments)
        keywords: dict[str, Any] = {"prompt": request.prompt}
        if self.sized:
            keywords |= {"height": request.height, "width": request.width}
        keywords["num_inference_steps"] = request.num_inference_steps
        if self.strength is not None and request.strength is not None:
            keywords["strength"] = request.strength
        if self.takes_controlnet:
            keywords["controlnet_conditioning_scale"] = _conditioning_scale(request)
        if self.negative_prompt:
            empty = request.negative_prompt == ""
            keywords["negative_prompt"] = self.empty_negative_prompt if empty else request.negative_prompt
        if self.guidance is not None:
            keywords[self.guidance] = request.guidance_scale
        keywords |= {name: value for name, (value, _why) in self.fixed.items()}
        # Its default is for one number of steps, and diffusers refuses it at others.
        keywords |= {
            name: None
            for name, one in self.arguments.items()
            if one.steps is not None and one.steps != request.num_inference_steps
        }
        return keywords | {name: self.arguments[name].meant(value) for name, value in arguments.items()}


def _conditioning_scale(request: Painted) -> float | list[float]:
    """How much each ControlNet has to say: a number for one, a list for several."""
    whole = request.controlnet_conditioning_scale
    each = [whole * one.scale for one in controlnets_of(request.controlnet)]
    return each[0] if len(each) == 1 else each
