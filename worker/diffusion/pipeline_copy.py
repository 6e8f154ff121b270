"""A copy of a pipeline for one image: it shares the modules, and has a state of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from diffusers import DiffusionPipeline, ModelMixin

_DENOISERS = ("unet", "transformer", "controlnet", "prior", "decoder")
"""Parts of the names of the components that are called in each step."""


def denoisers(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The modules that are called in each step, by name; those of a pipeline within as `prior_pipe.prior`."""
    found: dict[str, Any] = {}
    for name, component in _components(pipeline):
        if isinstance(component, DiffusionPipeline):
            found |= {f"{name}.{below}": module for below, module in denoisers(component).items()}
        elif (
            isinstance(component, ModelMixin)
            and any(part in name for part in _DENOISERS)
            # Not autoencoders, and not the small projections of texts.
            and not hasattr(component, "decode")
            and not hasattr(component, "projections")
        ):
            found[name] = component
    return found


def fork(
    pipeline: DiffusionPipeline, replace: Callable[[str, Any], Any | None], prefix: str = ""
) -> DiffusionPipeline:
    """A copy that shares the modules and has schedulers, guiders and settings of its own.

    replace(name, component): what stands in for a component; None leaves it as it is.
    """
    own = copy.copy(pipeline)
    own.__dict__["_progress_bar_config"] = {"disable": True}
    # At its end a call would take everyone's offload hooks off, and put them on again.
    own.__dict__["_all_hooks"] = []
    for name, component in _components(pipeline):
        if isinstance(component, DiffusionPipeline):
            own.__dict__[name] = fork(component, replace, f"{prefix}{name}.")
        elif (stand_in := replace(prefix + name, component)) is not None:
            own.__dict__[name] = stand_in
        elif _has_state(component):
            own.__dict__[name] = copy.deepcopy(component)
    return own


def _components(pipeline: DiffusionPipeline) -> Iterable[tuple[str, Any]]:
    return [(name, part) for name, part in pipeline.__dict__.items() if not name.startswith("_")]


def _has_state(component: Any) -> bool:
    """Schedulers, which count steps, and diffusers' guiders."""
    scheduler = hasattr(component, "step") and hasattr(component, "set_timesteps")
    return scheduler or type(component).__module__.startswith("diffusers.guiders")
