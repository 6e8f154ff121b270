"""diffusers' scheduler for a sampler's canonical name, on a pipeline's own noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from jobs.errors import ManifestError
from jobs.schedulers import FLOW_SCHEDULERS, NO_DYNAMIC_SHIFT, OWN_SCHEDULER, Scheduler, find_scheduler

_OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "skip_prk_steps",
)
"""What a scheduler's configuration says about the model; the rest is the sampler's own choice."""
_OF_A_FLOW_MODEL = (
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
    "time_shift_type",
)
"""The same of a model of flow matching: how noise levels are shifted. UniPC and DPM++ say `flow_shift`."""


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new diffusers scheduler for the sampler `name`, with the noise schedule of `config`.

    It is `Class.from_config(config, **options)`, except that only what belongs to the model is taken from
    `config`: Karras sigmas, a solver's order or an algorithm of the pipeline's scheduler would otherwise leak
    into a sampler that means something else, and one name would paint two pictures. As in from_config, what
    `config` holds only by its class's default gives way to the new class's default. PNDM is the PLMS of
    Stable Diffusion's own configurations (no Runge-Kutta steps) unless `config` says otherwise.

    Raises ManifestError for a name that is none.
    """
    # The offset and the clipping are what StableDiffusionPipeline's constructor would correct.
    return correct_scheduler(_on_the_schedule_of(find_scheduler(name), config))


def _on_the_schedule_of(scheduler: Scheduler, config: Mapping[str, Any]) -> Any:
    """diffusers' scheduler with what `config` says about the model."""
    scheduler_class = getattr(diffusers, scheduler.class_name)
    defaulted = config.get("_use_default_values", ())
    kept = {key: config[key] for key in _OF_THE_MODEL if key in config and key not in defaulted}
    if "skip_prk_steps" in inspect.signature(scheduler_class.__init__).parameters:
        kept.setdefault("skip_prk_steps", True)
    # from_config keeps what the class does not take, so that the way through LMS loses nothing.
    return scheduler_class.from_config({**kept, **scheduler.options})


def correct_scheduler(scheduler: Any) -> Any:
    """Give `scheduler` the two settings that StableDiffusionPipeline's constructor forces, and return it.

    `clip_sample` False, because latents are not confined to [-1, 1] as the pixels were for which DDPM and
    DDIM clip by default; `steps_offset` 1, as Stable Diffusion was trained and published with. The object is
    altered in place, as the pipeline does with the scheduler it is given.
    """
    if getattr(scheduler.config, "steps_offset", 1) != 1:
        scheduler.register_to_config(steps_offset=1)
    if getattr(scheduler.config, "clip_sample", False) is True:
        scheduler.register_to_config(clip_sample=False)
    return scheduler


def scheduler_like(name: str, own: Any) -> Any:
    """A new diffusers scheduler for the sampler `name`, for the pipeline whose saved scheduler is `own`.

    "default" is a new one of its class and configuration. A flow name gives `build_flow_scheduler`, and any
    other name a scheduler of Stable Diffusion's kind on `own`'s noise schedule, without the offset of one
    step that `build_scheduler` gives to StableDiffusionPipeline alone. Latents are not clipped to [-1, 1].

    Raises ManifestError for a name that is none, or that cannot do what the model needs.
    """
    scheduler = find_scheduler(name)
    if scheduler is OWN_SCHEDULER:
        return type(own).from_config(own.config)
    if scheduler in FLOW_SCHEDULERS:
        return build_flow_scheduler(name, own.config)
    built = _on_the_schedule_of(scheduler, own.config)
    if getattr(built.config, "clip_sample", False) is True:
        built.register_to_config(clip_sample=False)
    return built


def build_flow_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new diffusers scheduler for the flow sampler `name`, with the shift of noise levels of `config`.

    `config` is that of the pipeline's own scheduler: shift, dynamic shifting and its parameters are the
    model's, whatever class saved them; Karras or stochastic sampling of it are not taken over.

    Raises ManifestError for a name that is none of flow matching, or a sampler that does not know the dynamic
    shift that `config` asks for.
    """
    scheduler = find_scheduler(name)
    if scheduler not in FLOW_SCHEDULERS:
        known = ", ".join(one.name for one in FLOW_SCHEDULERS)
        raise ManifestError(f"scheduler = {name}: is not of flow matching: use one of {known}")
    if scheduler.name in NO_DYNAMIC_SHIFT and config.get("use_dynamic_shifting"):
        raise ManifestError(
            f"scheduler = {name}: cannot shift noise levels by the picture's size, as this model needs: use "
            "Flow Euler"
        )
    scheduler_class = getattr(diffusers, scheduler.class_name)
    kept = {key: config[key] for key in _OF_A_FLOW_MODEL if key in config}
    # The field's two names for one number: FlowMatch… says shift, the multistep solvers flow_shift.
    shift = config["flow_shift"] if "flow_shift" in config and "shift" not in config else config.get("shift")
    takes = inspect.signature(scheduler_class.__init__).parameters
    if shift is not None:
        kept |= {"shift": shift, "flow_shift": shift}
    kept = {key: value for key, value in kept.items() if key in takes}
    return scheduler_class(**kept, **scheduler.options)
