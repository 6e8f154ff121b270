"""One class of diffusers' pipelines: what its call takes, what it refuses, what an image of it costs."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

from jobs.arguments import arguments_of
from jobs.bounds import must_be_multiple
from jobs.pipeline_argument import Argument
from jobs.schedulers import NO_DYNAMIC_SHIFT, TAKES, forwards

STABLE_DIFFUSION: Final = "StableDiffusionPipeline"
WEIGHTED: Final = frozenset({STABLE_DIFFUSION, "StableDiffusionXLPipeline"})
"""The classes whose texts may have weights, or more tokens than a window: their encoders are CLIP's."""
NO_GUIDANCE: Final = 1.0
"""What a request of a class without guidance says."""

_ENCODED_OTHERWISE: Final = ("prompt_2", "negative_prompt_2", "clip_skip")
"""Arguments about texts that the pipeline's own call encodes."""
_SETTINGS: Final = {
    "guidance_scale": "guidance_scale",
    "true_cfg_scale": "guidance_scale",
    "prior_guidance_scale": "guidance_scale",
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "num_inference_steps": "num_inference_steps",
    "seed": "seed",
    "generator": "seed",
    "latents": "init_latents",
    "num_images_per_prompt": "images_per_prompt",
}
"""Arguments that a manifest gives as settings of its own."""


class Asked(Protocol):
    """What of a request decides how many forwards it takes; `ImageRequest` is one."""

    @property
    def scheduler(self) -> str: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def arguments(self) -> str: ...


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
class Trouble:
    """One thing that a class of pipelines does not take."""

    path: tuple[str, ...]
    """The setting, and in `arguments` the argument."""
    value: object
    what: str
    """What is wrong, and what is possible instead."""

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} = {json.dumps(self.value, ensure_ascii=False)}: {self.what}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a denoiser through its steps."""

    steps: str
    """The argument that counts its steps."""
    guided: int
    unguided: int
    """Slot evaluations of a step: slots of a call x calls."""
    switch: tuple[str, float] | None
    """The argument that switches guidance on, and the value above which it does."""
    more: tuple[str, float] | None
    """The argument that adds a slot to each call, and the value above which it does."""


@dataclass(frozen=True, slots=True)
class PipelineClass:
    """One class of diffusers that is rendered."""

    name: str
    task: str
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

    def troubles(self, values: Mapping[str, Any], folder: Folder) -> Iterator[Trouble]:
        """What is wrong with an image's settings for this class; `values` are those of `ImageRequest`."""
        arguments = arguments_of(values["arguments"])
        yield from self._size_troubles(values, arguments, folder)
        yield from self._setting_troubles(values, folder)
        yield from self._text_troubles(values, arguments)
        for name, value in arguments.items():
            trouble = self._argument_trouble(name, value, values, folder)
            if trouble is not None:
                yield Trouble(("arguments", name), value, trouble)
        if arguments.get("timesteps") is not None and arguments.get("sigmas") is not None:
            yield Trouble(
                ("arguments", "sigmas"), arguments["sigmas"], "excludes timesteps: remove one of them"
            )

    def _setting_troubles(self, values: Mapping[str, Any], folder: Folder) -> Iterator[Trouble]:
        scale, negative, scheduler = (
            values[name] for name in ("guidance_scale", "negative_prompt", "scheduler")
        )
        if self.guidance is None and scale != NO_GUIDANCE:
            yield Trouble(("guidance_scale",), scale, f"{self.name} has no guidance: remove it")
        elif self.guidance is not None and scale < self.least_guidance:
            yield Trouble(("guidance_scale",), scale, f"must be at least {self.least_guidance:g}")
        if negative != "" and not self.negative_prompt:
            yield Trouble(("negative_prompt",), negative, f"{self.name} takes none: remove it")
        if scheduler not in self.schedulers:
            yield Trouble(
                ("scheduler",), scheduler, f"{self.name} does not take it: use {_either(self.schedulers)}"
            )
        elif scheduler in NO_DYNAMIC_SHIFT and folder.dynamic_shift:
            able = [one for one in self.schedulers if one not in NO_DYNAMIC_SHIFT]
            what = (
                f"cannot shift noise levels by the picture's size, as this model needs: use {_either(able)}"
            )
            yield Trouble(("scheduler",), scheduler, what)

    def _text_troubles(self, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[Trouble]:
        """What is wrong with how texts are to be read and encoded."""
        syntax, long_prompts = values["syntax"], values["long_prompts"]
        asked = [
            (name, value)
            for name, value, usual in (("syntax", syntax, "plain"), ("long_prompts", long_prompts, "cut"))
            if value != usual
        ]
        if asked and self.name not in WEIGHTED:
            for name, value in asked:
                yield Trouble((name,), value, f"only {_either(sorted(WEIGHTED))} take it: remove it")
            return
        for name in _ENCODED_OTHERWISE if asked else ():
            if arguments.get(name) is not None:
                what = f"cannot be given with {asked[0][0]}: {asked[0][1]}: remove one of them"
                yield Trouble(("arguments", name), arguments[name], what)

    def _size_troubles(
        self, values: Mapping[str, Any], arguments: Mapping[str, Any], folder: Folder
    ) -> Iterator[Trouble]:
        step = self.multiple(folder)
        found = False
        for side in ("height", "width"):
            pixels = values[side]
            if pixels % step:
                found = True
                yield Trouble((side,), pixels, must_be_multiple(pixels, step))
        height, width = values["height"], values["width"]
        only = [tuple(one) for one in self.size.get("sizes", ())]
        lifted = "unless" in self.size and arguments.get(self.size["unless"]) is False
        if found or (only and lifted):
            return
        if only and (height, width) not in only:
            what = f"{self.name} takes no {height}x{width} (height x width): use {_either(_sizes(only))}"
            if "unless" in self.size:
                what += f", or arguments: {{{self.size['unless']}: false}}"
            yield Trouble(("height",), height, what)
        if self.size.get("area"):
            nearest = self._of_its_area(height, width, arguments, folder)
            if nearest != (height, width):
                what = f"{self.name} would paint {nearest[0]}x{nearest[1]} (height x width): give that size"
                yield Trouble(("height",), height, what)

    def _of_its_area(
        self, height: int, width: int, arguments: Mapping[str, Any], folder: Folder
    ) -> tuple[int, int]:
        """The size of about its own area that the class makes of another.

        Source: diffusers' HiDreamImagePipeline.__call__, and FluxKontextPipeline's, which has an argument.
        """
        scale = folder.scale if folder.scale is not None else int(self.size["scale"]["usual"])
        side, division = int(self.size["default"]["latents"]) * scale, scale * 2
        named = self.size["area"]
        if named is True:
            factor = math.sqrt(side**2 / (width * height))
            return int(height * factor // division * division), int(width * factor // division * division)
        area, aspect = arguments.get(named, self.arguments[named].default), width / height
        high, wide = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        return high // division * division, wide // division * division

    def _argument_trouble(
        self, name: str, value: Any, values: Mapping[str, Any], folder: Folder
    ) -> str | None:
        if name in self.fixed:
            return f"cannot be given: {self.fixed[name][1]}; remove it"
        argument = self.arguments.get(name)
        if argument is None:
            return self._unknown(name)
        if not argument.takes(value):
            return f"must be {argument.words}"
        if value is None:
            return None
        steps, scheduler = values["num_inference_steps"], values["scheduler"]
        if name in ("sigmas", "timesteps"):
            # Of those schedulers only the Euler ones take noise levels; the last is what noise is left.
            with_last = name == "sigmas" and "Euler" in self.schedulers
            if len(value) != steps + with_last:
                told = f"has {len(value)} values, and num_inference_steps = {steps}"
                return f"{told}: {'give one more, the last 0' if with_last else 'make them the same'}"
            if any(after >= before for before, after in pairwise(value)):
                return "must descend: sort them, each once"
            if with_last and value[-1] != 0:
                return "must end with 0, or noise is left: add it, or make it the last"
        if name in TAKES and value and scheduler in self.schedulers and scheduler not in TAKES[name]:
            able = [one for one in self.schedulers if one in TAKES[name]]
            does = "ignores it" if name == "eta" else "takes no such list"
            return f"the scheduler {scheduler} {does}: use {_either(able)}, or remove it"
        if argument.steps is not None and steps != argument.steps:
            return f"only means something at num_inference_steps = {argument.steps}: remove it"
        if argument.steps_within and value < steps:
            return f"must be at least num_inference_steps = {steps}"
        if argument.dynamic_shift and folder.dynamic_shift is False:
            return "would be ignored: this model shifts all noise levels alike; remove it"
        return None

    def _unknown(self, name: str) -> str:
        setting = _SETTINGS.get(name)
        if setting is not None:
            return f"is given as {setting} in `settings`, not here"
        close = difflib.get_close_matches(name, self.arguments, 1)
        if close:
            return f"{self.name} has no such argument: did you mean {close[0]}?"
        known = f"use {_either(self.arguments)}" if self.arguments else "it takes none"
        return f"{self.name} has no such argument: {known}"

    def value(self, name: str, asked: Asked, arguments: Mapping[str, Any]) -> Any:
        """What an argument of the call is for an image."""
        if name == self.guidance:
            return asked.guidance_scale
        if name == "num_inference_steps":
            return asked.num_inference_steps
        return arguments[name] if name in arguments else self.arguments[name].default

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
            steps = self.value(stage.steps, asked, arguments)
            calls = forwards(asked.scheduler, steps) if stage.steps == "num_inference_steps" else steps
            each = stage.guided if self._on(stage.switch, asked, arguments) else stage.unguided
            total += calls * (each + self._on(stage.more, asked, arguments))
        return total

    def _on(self, switch: tuple[str, float] | None, asked: Asked, arguments: Mapping[str, Any]) -> bool:
        return switch is not None and bool(self.value(switch[0], asked, arguments) > switch[1])

    def call_arguments(self, request: Painted) -> dict[str, Any]:
        """The keywords of the pipeline's call for a request; noise and form of the output aside."""
        arguments = arguments_of(request.arguments)
        keywords: dict[str, Any] = {
            "prompt": request.prompt,
            "height": request.height,
            "width": request.width,
            "num_inference_steps": request.num_inference_steps,
        }
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


def _either(names: Any) -> str:
    several = list(names)
    return several[0] if len(several) == 1 else f"{', '.join(several[:-1])} or {several[-1]}"


def _sizes(sizes: list[tuple[Any, ...]]) -> list[str]:
    return [f"{height}x{width}" for height, width in sizes]
