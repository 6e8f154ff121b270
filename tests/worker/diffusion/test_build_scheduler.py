from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from jobs.errors import ManifestError
from jobs.schedulers import SCHEDULERS, Scheduler
from worker.diffusion.build_scheduler import build_scheduler, correct_scheduler
from worker.renderers.shapes_random import build

pytestmark = pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return build()


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: scheduler.name)
def test_the_noise_schedule_is_the_models_own(scheduler: Scheduler) -> None:
    base = PNDMScheduler(**BETAS, prediction_type="v_prediction", steps_offset=1, num_train_timesteps=900)
    built = build_scheduler(scheduler.name, base.config)
    assert type(built).__name__ == scheduler.class_name
    assert torch.equal(built.betas, base.betas)
    assert built.config.prediction_type == "v_prediction"
    assert built.config.num_train_timesteps == 900
    assert getattr(built.config, "clip_sample", False) is False
    for option, value in scheduler.options.items():
        assert built.config[option] == value


def test_the_choices_of_the_pipelines_own_sampler_do_not_leak_into_another() -> None:
    base = DPMSolverMultistepScheduler(
        **BETAS, use_karras_sigmas=True, solver_order=3, algorithm_type="sde-dpmsolver++", thresholding=True
    )
    plain = build_scheduler("DPM++ 2M", base.config)
    assert plain.config.use_karras_sigmas is False
    assert (plain.config.solver_order, plain.config.algorithm_type) == (2, "dpmsolver++")
    assert build_scheduler("Euler", base.config).config.use_karras_sigmas is False
    assert build_scheduler("DDIM", base.config).config.thresholding is False


def test_options_that_only_other_classes_take_survive_the_way_through_lms() -> None:
    base = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    lms = build_scheduler("LMS", base.config)
    for name in ("DDIM", "PNDM"):
        direct, detour = build_scheduler(name, base.config), build_scheduler(name, lms.config)
        direct.set_timesteps(10)
        detour.set_timesteps(10)
        assert torch.equal(direct.timesteps, detour.timesteps)
        assert torch.equal(direct.final_alpha_cumprod, detour.final_alpha_cumprod)
        assert detour.config.steps_offset == 1


def test_pndm_runs_no_runge_kutta_steps_whatever_the_base_was() -> None:
    built = build_scheduler("PNDM", LMSDiscreteScheduler(**BETAS).config)
    built.set_timesteps(10)
    assert len(built.timesteps) == 11


def test_a_scheduler_is_corrected_as_the_pipelines_constructor_corrects_it(
    pipe: StableDiffusionPipeline,
) -> None:
    ours, theirs = DDIMScheduler(**BETAS), DDIMScheduler(**BETAS)
    assert ours.config.clip_sample is True
    corrected = correct_scheduler(ours)
    parts = {**pipe.components, "scheduler": theirs}
    StableDiffusionPipeline(**parts, requires_safety_checker=False)
    assert corrected.config.clip_sample is theirs.config.clip_sample is False
    assert corrected.config.steps_offset == theirs.config.steps_offset == 1


def test_a_name_that_is_no_samplers_is_refused() -> None:
    with pytest.raises(ManifestError, match="'Eular'"):
        build_scheduler("Eular", LMSDiscreteScheduler().config)
