"""diffusers' scheduler for a sampler's canonical name, on a pipeline's own noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from jobs.schedulers import find_scheduler

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


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new diffusers scheduler for the sampler `name`, with the noise schedule of `config`.

    It is `Class.from_config(config, **options)`, except that only what belongs to the model is taken from
    `config`: Karras sigmas, a solver's order or an algorithm of the pipeline's scheduler would otherwise leak
    into a sampler that means something else, and one name would paint two pictures. As in from_config, what
    `config` holds only by its class's default gives way to the new class's default. PNDM is the PLMS of
    Stable Diffusion's own configurations (no Runge-Kutta steps) unless `config` says otherwise.

    Raises ManifestError for a name that is none.
    """
    scheduler = find_scheduler(name)
    scheduler_class = getattr(diffusers, scheduler.class_name)
    defaulted = config.get("_use_default_values", ())
    kept = {key: config[key] for key in _OF_THE_MODEL if key in config and key not in defaulted}
    if "skip_prk_steps" in inspect.signature(scheduler_class.__init__).parameters:
        kept.setdefault("skip_prk_steps", True)
    # from_config keeps what the class does not take, so that the way through LMS loses nothing.
    return correct_scheduler(scheduler_class.from_config({**kept, **scheduler.options}))


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
