"""A scheduler of another kind for a pipeline, from what its own says about the model."""

from __future__ import annotations

import inspect

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

from jobs.errors import ManifestError
from jobs.pipelines.pipelines import find_pipeline
from jobs.schedulers import FLOW_SCHEDULERS, SCHEDULERS, TAKES, Scheduler
from tests.tiny.families import FAMILIES
from worker.diffusion.build_scheduler import build_flow_scheduler, scheduler_like

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

DYNAMIC = {
    "shift": 1.15,
    "use_dynamic_shifting": True,
    "base_shift": 0.25,
    "max_shift": 0.75,
    "time_shift_type": "exponential",
}
_PAINTED = (
    "FluxPipeline",
    "StableDiffusion3Pipeline",
    "QwenImagePipeline",
    "AuraFlowPipeline",
    "HunyuanImagePipeline",
    "CogView4Pipeline",
    "ZImagePipeline",
    "LuminaPipeline",
    "PRXPipeline",
)
FLOWS = [(name, scheduler) for name in _PAINTED for scheduler in find_pipeline(name).schedulers]


@pytest.mark.parametrize("name", ["Flow Euler", "Flow UniPC", "Flow DPM++ 2M"])
def test_a_flow_sampler_keeps_the_models_shift(name: str) -> None:
    fixed = build_flow_scheduler(name, {"shift": 3.0, "num_train_timesteps": 900})
    assert fixed.config.get("flow_shift", fixed.config.get("shift")) == 3.0
    assert fixed.config.num_train_timesteps == 900
    assert fixed.config.use_dynamic_shifting is False
    # UniPC and DPM++ say flow_shift, also where a model was saved with one of them.
    saved = build_flow_scheduler("Flow UniPC", {"flow_shift": 5.0})
    again = build_flow_scheduler(name, saved.config)
    assert again.config.get("flow_shift", again.config.get("shift")) == 5.0
    dynamic = build_flow_scheduler(name, DYNAMIC)
    assert dynamic.config.use_dynamic_shifting is True
    dynamic.set_timesteps(4, mu=0.9)
    assert bool(torch.isfinite(dynamic.sigmas).all())


@pytest.mark.parametrize("name", ["Flow Euler", "Flow UniPC"])
def test_flow_samplers_walk_the_same_noise_levels(name: str) -> None:
    sigmas = np.array([1.0, 0.75, 0.5, 0.25])
    euler = FlowMatchEulerDiscreteScheduler.from_config(DYNAMIC)
    euler.set_timesteps(sigmas=sigmas, mu=0.9)
    other = build_flow_scheduler(name, euler.config)
    other.set_timesteps(sigmas=sigmas, mu=0.9)
    assert torch.allclose(other.sigmas, euler.sigmas, atol=2e-6)


def test_a_sampler_without_dynamic_shift_refuses_a_model_that_needs_it() -> None:
    assert (
        type(build_flow_scheduler("Flow Heun", {"shift": 3.0})).__name__ == "FlowMatchHeunDiscreteScheduler"
    )
    with pytest.raises(ManifestError, match="cannot shift noise levels by the picture's size"):
        build_flow_scheduler("Flow Heun", DYNAMIC)
    with pytest.raises(
        ManifestError, match="scheduler = Euler: is not of flow matching: use one of Flow Euler"
    ):
        build_flow_scheduler("Euler", DYNAMIC)


def test_default_is_a_new_one_of_the_pipelines_own() -> None:
    own = FlowMatchEulerDiscreteScheduler(shift=2.5, use_karras_sigmas=True)
    again = scheduler_like("default", own)
    assert again is not own
    assert type(again) is type(own)
    assert dict(again.config) == dict(own.config)


def test_another_sampler_of_stable_diffusions_kind_keeps_the_offset_of_the_model_and_clips_nothing() -> None:
    own = EulerDiscreteScheduler(beta_start=0.001, beta_schedule="scaled_linear", steps_offset=0)
    ddim = scheduler_like("DDIM", own)
    assert isinstance(ddim, DDIMScheduler)
    assert ddim.config.clip_sample is False
    assert ddim.config.steps_offset == 0
    assert torch.equal(ddim.betas, own.betas)


@pytest.mark.parametrize(("class_name", "scheduler"), FLOWS)
def test_a_flow_pipeline_paints_with_every_sampler_that_its_class_lists(
    class_name: str, scheduler: str
) -> None:
    family = FAMILIES[class_name]
    pipe = family.build()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler_like(scheduler, pipe.scheduler)
    [picture] = pipe(
        "a fox",
        height=family.height,
        width=family.width,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **family.arguments,
    ).images
    assert picture.shape[:2] == (family.height, family.width)
    assert picture.std() > 0


@pytest.mark.parametrize("argument", ["timesteps", "sigmas"])
@pytest.mark.parametrize("name", [one.name for one in (*SCHEDULERS, *FLOW_SCHEDULERS)])
def test_a_sampler_takes_a_list_if_and_only_if_the_producer_says_so(name: str, argument: str) -> None:
    flow = name in {one.name for one in FLOW_SCHEDULERS}
    own = FlowMatchEulerDiscreteScheduler(shift=3.0) if flow else DDIMScheduler(beta_schedule="scaled_linear")
    scheduler = scheduler_like(name, own)
    last = [] if flow else [0.0]
    given = {"timesteps": [900, 500, 1], "sigmas": [0.9, 0.5, 0.1, *last]}[argument]
    try:
        retrieve_timesteps(scheduler, 3, "cpu", **{argument: given})
    except (TypeError, ValueError):
        taken = False
    else:
        taken = True
        assert len(scheduler.timesteps) >= 3
    assert (name in TAKES[argument]) is taken


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda one: one.name)
def test_a_sampler_uses_eta_if_and_only_if_the_producer_says_so(scheduler: Scheduler) -> None:
    step = getattr(diffusers, scheduler.class_name).step
    assert ("eta" in inspect.signature(step).parameters) is (scheduler.name in TAKES["eta"])
