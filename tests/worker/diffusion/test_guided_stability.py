"""Why LMS falls apart under strong guidance: on a case whose answer is known, not on a model to blame."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler


def guided_to_a_point(spacing: str, guidance: float, steps: int, scheduler_class: type) -> float:
    """Where a sample of N(0, 1) data ends that is guided to the point 0; the right answer is 0.

    The exact noise predictions at sigma are x sigma / (1 + sigma^2) without and x / sigma with the condition.
    """
    options = {"clip_sample": False} if scheduler_class is DDIMScheduler else {}
    scheduler = scheduler_class(
        **options, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing=spacing
    )
    scheduler.set_timesteps(steps)
    sigmas = LMSDiscreteScheduler.from_config(scheduler.config)
    sigmas.set_timesteps(steps)
    x = torch.ones(1, dtype=torch.float64) * float(scheduler.init_noise_sigma)
    for timestep, lms_sigma in zip(scheduler.timesteps, sigmas.sigmas.double(), strict=False):
        sigma = lms_sigma
        if scheduler_class is DDIMScheduler:
            alpha = scheduler.alphas_cumprod[int(timestep)].double()
            sigma = ((1 - alpha) / alpha).sqrt()
        latent = scheduler.scale_model_input(x, timestep)
        x_at_sigma = latent * (1 + sigma**2).sqrt()
        free, conditioned = x_at_sigma * sigma / (1 + sigma**2), x_at_sigma / sigma
        x = scheduler.step(free + guidance * (conditioned - free), timestep, x).prev_sample
    return abs(float(x))


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_lms_leaves_the_answer_as_guidance_grows_and_more_steps_bring_it_back(spacing: str) -> None:
    ends = [guided_to_a_point(spacing, guidance, 20, LMSDiscreteScheduler) for guidance in (3, 7.5, 10, 12)]
    assert all(one < other for one, other in pairwise(ends))
    assert ends[0] < 0.02 and ends[-1] > 1
    assert guided_to_a_point(spacing, 10, 60, LMSDiscreteScheduler) < 0.1 * ends[2]


def test_trailing_steps_hold_lms_together_longer() -> None:
    assert guided_to_a_point("trailing", 7.5, 20, LMSDiscreteScheduler) < 0.2 * guided_to_a_point(
        "linspace", 7.5, 20, LMSDiscreteScheduler
    )


def test_ddim_stays_where_lms_leaves() -> None:
    assert guided_to_a_point("trailing", 12, 20, DDIMScheduler) < 0.1
