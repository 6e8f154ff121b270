"""A pipeline of another class over the modules of a loaded one: img2img, inpainting, ControlNets."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import diffusers
import torch
from diffusers.configuration_utils import FrozenDict

from jobs.errors import ModelError, RenderError
from jobs.pipelines.pipeline_class import PipelineClass

_USUAL_CHANNELS = 4
_LEFT_OUT = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
"""As for pipelines that are loaded."""


def task_pipeline(
    pipeline: diffusers.DiffusionPipeline, class_name: str, controlnet: torch.nn.Module | None = None
) -> diffusers.DiffusionPipeline:
    """A pipeline of diffusers' class `class_name` with the components and the settings of `pipeline`.

    Not by diffusers' `from_pipe`, which converts every module to one format. controlnet: the component of a
    class that has one, by `joined_controlnets`.
    Raises RenderError for a class that this diffusers does not have or that needs what the pipeline lacks.
    """
    kind = getattr(diffusers, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise RenderError(
            f"diffusers {diffusers.__version__}, which is here, has no {class_name}: install "
            "imagemill[worker] again"
        )
    have = {**pipeline.config, **pipeline.components, **_LEFT_OUT}
    if controlnet is not None:
        have["controlnet"] = controlnet
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in have:
            # Some classes correct their scheduler's settings.
            part = have[name]
            given[name] = copy.deepcopy(part) if hasattr(part, "set_timesteps") else part
        elif parameter.default is inspect.Parameter.empty:
            raise RenderError(f"{class_name} needs {name}, which a {type(pipeline).__name__} does not have")
    made = kind(**given)
    made.set_progress_bar_config(disable=True)
    return made


def inpainting_config(
    kind: PipelineClass, pipeline: diffusers.DiffusionPipeline, denoiser: Any
) -> Mapping[str, Any] | None:
    """The configuration that a pipeline which inpaints is to see of a UNet; None: its own.

    diffusers' classes know UNets of four channels, the latents alone, and of nine, with a mask beside. Those
    of a model whose latents have another number of channels are like the former.
    """
    autoencoder, own = getattr(pipeline, "vae", None), getattr(denoiser, "config", None)
    if (
        "mask_image" not in kind.pictures
        or autoencoder is None
        or not isinstance(denoiser, diffusers.UNet2DConditionModel)
    ):
        return None
    latents = autoencoder.config.get("latent_channels")
    if own is None or own.in_channels != latents or latents == _USUAL_CHANNELS:
        return None
    seen: Mapping[str, Any] = FrozenDict({**own, "in_channels": _USUAL_CHANNELS})
    return seen


def joined_controlnets(class_name: str, controlnets: Mapping[str, torch.nn.Module]) -> torch.nn.Module:
    """What a pipeline of diffusers' class `class_name` takes as its `controlnet`: one, or several as one.

    controlnets: by the names that a manifest has for them. Raises ModelError for one of another kind than the
    class takes, and for several where it takes one.
    """
    kind = getattr(diffusers, class_name)
    taken = set(_types(inspect.signature(kind).parameters["controlnet"].annotation))
    several = next((one for one in taken if "Multi" in one.__name__), None)
    single = taken - {several, list, tuple}
    for model, controlnet in controlnets.items():
        if type(controlnet) not in single:
            names = " or ".join(sorted(one.__name__ for one in single))
            raise ModelError(
                f"controlnet = {model}: it is a {type(controlnet).__name__}, and a {class_name} takes a "
                f"{names}: name one that was made for this model"
            )
    [first, *others] = controlnets.values()
    if not others:
        return first
    if several is None:
        raise ModelError(f"controlnet: a {class_name} takes one, and {len(controlnets)} are given: name one")
    joined: torch.nn.Module = several([*controlnets.values()])
    return joined


def _types(annotation: Any) -> Iterator[Any]:
    """The classes in an annotation."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _types(part)
