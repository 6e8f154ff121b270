"""Which schedulers a class of pipelines takes: the flow ones are tried as it calls them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy
import torch

from jobs.schedulers import FLOW_SCHEDULERS, OWN_SCHEDULER, SCHEDULERS
from tools.known_pipeline import Known
from tools.pipeline_source import unparsed
from worker.diffusion.build_scheduler import build_flow_scheduler


def schedulers_of(pipeline: Any, known: Known) -> Iterator[str]:
    """The names that the class takes: the flow ones that bear being called as it calls them."""
    if pipeline.__name__ != "StableDiffusionPipeline":
        yield OWN_SCHEDULER.name
    if known.schedulers == "diffusion":
        yield from (scheduler.name for scheduler in SCHEDULERS)
    elif known.schedulers != "own":
        noises = "self.scheduler.scale_noise(" in unparsed(pipeline)
        call = f"{known.schedulers}, scale_noise" if noises else known.schedulers
        yield from (one.name for one in FLOW_SCHEDULERS if _takes(one.name, call))


@cache
def _takes(name: str, call: str) -> bool:
    """Whether diffusers' scheduler bears a flow pipeline's call: the arguments of its `set_timesteps`, then
    all its steps. `mu` comes with dynamic shifting and, from pipelines that always give it, without; what
    begins with an image comes with `scale_noise`, and leaves out steps."""
    dynamic = (False, True) if "mu" in call else (False,)
    for shifting in dynamic:
        config = {"shift": 3.0, "use_dynamic_shifting": shifting}
        try:
            _run(build_flow_scheduler(name, config), call)
        except (AssertionError, AttributeError, TypeError, ValueError, IndexError):
            return False
    return True


def _run(scheduler: Any, call: str) -> None:
    """A flow pipeline's use of its scheduler, with a denoiser that says zeros."""
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    steps = 6
    arguments: dict[str, Any] = {}
    # FLUX and its kin leave sigmas to a scheduler that makes its own, others do not: the harder way counts.
    if "sigmas" in call:
        sigmas = numpy.linspace(1.0, 1 / steps, steps)
        kinds = {"list of": sigmas.tolist(), "tensor of": torch.from_numpy(sigmas)}
        arguments["sigmas"] = next((made for kind, made in kinds.items() if kind in call), sigmas)
    if "timesteps" in call:
        arguments["timesteps"] = numpy.linspace(1000.0, 1.0, steps).astype(numpy.int64)
    if "mu" in call:
        arguments["mu"] = 0.8
    if arguments.keys() >= {"sigmas", "timesteps"}:
        accepted = inspect.signature(scheduler.set_timesteps).parameters
        if not accepted.keys() >= {"sigmas", "timesteps"}:
            raise ValueError("takes no timesteps and sigmas at once")
        scheduler.set_timesteps(device="cpu", **arguments)
    else:
        retrieve_timesteps(scheduler, steps, "cpu", **arguments)
    sample = torch.ones(1, 1, 2, 2)
    begin = 0
    if "scale_noise" in call:
        begin = 2 * scheduler.order
        scheduler.set_begin_index(begin)
        sample = scheduler.scale_noise(sample, scheduler.timesteps[begin : begin + 1], sample)
    for timestep in scheduler.timesteps[begin:]:
        sample = scheduler.step(torch.zeros_like(sample), timestep, sample, return_dict=False)[0]
    if not bool(torch.isfinite(sample).all()):
        raise ValueError("gives no finite numbers")
