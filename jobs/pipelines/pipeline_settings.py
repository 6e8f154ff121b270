"""Whether one class of pipelines takes an image's settings: size, guidance, scheduler, texts, arguments."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from jobs.arguments import arguments_of
from jobs.bounds import must_be_multiple
from jobs.pipelines.pipeline_class import NO_GUIDANCE, WEIGHTED, Folder, PipelineClass
from jobs.pipelines.pipeline_trouble import Trouble, either
from jobs.schedulers import NO_DYNAMIC_SHIFT, TAKES

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


def setting_troubles(pipeline: PipelineClass, values: Mapping[str, Any], folder: Folder) -> Iterator[Trouble]:
    """What is wrong with an image's settings for the class that paints it; `values` are those of
    `ImageRequest`. Its pictures are `jobs.pipelines.pipeline_task`'s."""
    return _Check(pipeline).troubles(values, folder)


@dataclass(frozen=True, slots=True)
class _Check:
    kind: PipelineClass

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
        if self.kind.guidance is None and scale != NO_GUIDANCE:
            yield Trouble(("guidance_scale",), scale, f"{self.kind.name} has no guidance: remove it")
        elif self.kind.guidance is not None and scale < self.kind.least_guidance:
            yield Trouble(("guidance_scale",), scale, f"must be at least {self.kind.least_guidance:g}")
        if negative != "" and not self.kind.negative_prompt:
            yield Trouble(("negative_prompt",), negative, f"{self.kind.name} takes none: remove it")
        if scheduler not in self.kind.schedulers:
            yield Trouble(
                ("scheduler",),
                scheduler,
                f"{self.kind.name} does not take it: use {either(self.kind.schedulers)}",
            )
        elif scheduler in NO_DYNAMIC_SHIFT and folder.dynamic_shift:
            able = [one for one in self.kind.schedulers if one not in NO_DYNAMIC_SHIFT]
            what = f"cannot shift noise levels by the picture's size, as this model needs: use {either(able)}"
            yield Trouble(("scheduler",), scheduler, what)

    def _text_troubles(self, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[Trouble]:
        """What is wrong with how texts are to be read and encoded."""
        syntax, long_prompts = values["syntax"], values["long_prompts"]
        asked = [
            (name, value)
            for name, value, usual in (("syntax", syntax, "plain"), ("long_prompts", long_prompts, "cut"))
            if value != usual
        ]
        if asked and not self.kind.weighted:
            for name, value in asked:
                yield Trouble((name,), value, f"only {either(sorted(WEIGHTED))} take it: remove it")
            return
        for name in _ENCODED_OTHERWISE if asked else ():
            if arguments.get(name) is not None:
                what = f"cannot be given with {asked[0][0]}: {asked[0][1]}: remove one of them"
                yield Trouble(("arguments", name), arguments[name], what)

    def _size_troubles(
        self, values: Mapping[str, Any], arguments: Mapping[str, Any], folder: Folder
    ) -> Iterator[Trouble]:
        step = self.kind.multiple(folder)
        found = False
        for side in ("height", "width"):
            pixels = values[side]
            if pixels % step:
                found = True
                yield Trouble((side,), pixels, must_be_multiple(pixels, step))
        height, width = values["height"], values["width"]
        only = [tuple(one) for one in self.kind.size.get("sizes", ())]
        lifted = "unless" in self.kind.size and arguments.get(self.kind.size["unless"]) is False
        if found or (only and lifted):
            return
        if only and (height, width) not in only:
            what = f"{self.kind.name} takes no {height}x{width} (height x width): use {either(_sizes(only))}"
            if "unless" in self.kind.size:
                what += f", or arguments: {{{self.kind.size['unless']}: false}}"
            yield Trouble(("height",), height, what)
        if self.kind.size.get("area"):
            nearest = self._of_its_area(height, width, arguments, folder)
            if nearest != (height, width):
                what = (
                    f"{self.kind.name} would paint {nearest[0]}x{nearest[1]} (height x width): give that size"
                )
                yield Trouble(("height",), height, what)

    def _of_its_area(
        self, height: int, width: int, arguments: Mapping[str, Any], folder: Folder
    ) -> tuple[int, int]:
        """The size of about its own area that the class makes of another.

        Source: diffusers' HiDreamImagePipeline.__call__, and FluxKontextPipeline's, which has an argument.
        """
        scale = folder.scale if folder.scale is not None else int(self.kind.size["scale"]["usual"])
        side, division = int(self.kind.size["default"]["latents"]) * scale, scale * 2
        named = self.kind.size["area"]
        if named is True:
            factor = math.sqrt(side**2 / (width * height))
            return int(height * factor // division * division), int(width * factor // division * division)
        area, aspect = arguments.get(named, self.kind.arguments[named].default), width / height
        high, wide = round((area / aspect) ** 0.5), round((area * aspect) ** 0.5)
        return high // division * division, wide // division * division

    def _argument_trouble(
        self, name: str, value: Any, values: Mapping[str, Any], folder: Folder
    ) -> str | None:
        if name in self.kind.fixed:
            return f"cannot be given: {self.kind.fixed[name][1]}; remove it"
        argument = self.kind.arguments.get(name)
        if argument is None:
            return self._unknown(name)
        if not argument.takes(value):
            return f"must be {argument.words}"
        if value is None:
            return None
        steps, scheduler = values["num_inference_steps"], values["scheduler"]
        if name in ("sigmas", "timesteps"):
            # Of those schedulers only the Euler ones take noise levels; the last is what noise is left.
            with_last = name == "sigmas" and "Euler" in self.kind.schedulers
            if len(value) != steps + with_last:
                told = f"has {len(value)} values, and num_inference_steps = {steps}"
                return f"{told}: {'give one more, the last 0' if with_last else 'make them the same'}"
            if any(after >= before for before, after in pairwise(value)):
                return "must descend: sort them, each once"
            if with_last and value[-1] != 0:
                return "must end with 0, or noise is left: add it, or make it the last"
        if name in TAKES and value and scheduler in self.kind.schedulers and scheduler not in TAKES[name]:
            able = [one for one in self.kind.schedulers if one in TAKES[name]]
            does = "ignores it" if name == "eta" else "takes no such list"
            return f"the scheduler {scheduler} {does}: use {either(able)}, or remove it"
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
        close = difflib.get_close_matches(name, self.kind.arguments, 1)
        if close:
            return f"{self.kind.name} has no such argument: did you mean {close[0]}?"
        known = f"use {either(self.kind.arguments)}" if self.kind.arguments else "it takes none"
        return f"{self.kind.name} has no such argument: {known}"


def _sizes(sizes: list[tuple[Any, ...]]) -> list[str]:
    return [f"{height}x{width}" for height, width in sizes]
