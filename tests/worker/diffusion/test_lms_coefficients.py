from __future__ import annotations

import gc
import weakref

import pytest
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler

from worker.diffusion.lms_coefficients import LmsCoefficients


def sampled(scheduler: LMSDiscreteScheduler, steps: int) -> torch.Tensor:
    """A latent after all steps, whose noise prediction is half of it."""
    latents = torch.linspace(-1, 1, 16)
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(latents / 2, timestep, latents, return_dict=False)[0]
    return latents


def remembering(known: LmsCoefficients) -> LMSDiscreteScheduler:
    scheduler = LMSDiscreteScheduler()
    known.remembered_by(scheduler)
    return scheduler


def test_coefficients_are_diffusers_own_for_every_number_of_steps() -> None:
    known = LmsCoefficients()
    for steps in (7, 3, 7, 12):
        assert torch.equal(sampled(remembering(known), steps), sampled(LMSDiscreteScheduler(), steps))


def test_a_second_image_integrates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = LmsCoefficients()
    first = sampled(remembering(known), 9)

    def fail(*_args: object) -> None:
        raise AssertionError("integrated again")

    monkeypatch.setattr(LMSDiscreteScheduler, "get_lms_coefficient", fail)
    assert torch.equal(sampled(remembering(known), 9), first)
    with pytest.raises(AssertionError, match="integrated again"):
        sampled(remembering(known), 8)


def test_other_schedulers_are_left_as_they_are() -> None:
    scheduler = DDIMScheduler()
    before = dict(vars(scheduler))
    LmsCoefficients().remembered_by(scheduler)
    assert vars(scheduler) == before


def test_a_scheduler_is_freed_with_its_image() -> None:
    """It holds the last noise of its image, on a GPU: that is not to wait until garbage is collected."""
    known = LmsCoefficients()
    gc.disable()
    try:
        scheduler = remembering(known)
        sampled(scheduler, 3)
        freed = weakref.ref(scheduler)
        del scheduler
        assert freed() is None
    finally:
        gc.enable()
