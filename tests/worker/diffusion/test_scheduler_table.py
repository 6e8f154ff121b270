from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

from jobs.schedulers import SCHEDULERS
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.scheduler_table import (
    CHECK_TOLERANCE,
    OUTPUT_TERMS,
    TERMS,
    X_TERMS,
    SchedulerTable,
    compile_scheduler,
    difference_from_scheduler,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NAMES = [scheduler.name for scheduler in SCHEDULERS]
SHAPE = (1, 4, 8, 8)


def scheduler_of(name: str, prediction_type: str = "epsilon", **config: object) -> Any:
    return build_scheduler(name, {**BETAS, "prediction_type": prediction_type, **config})


def answer(slot: torch.Tensor, step: int) -> torch.Tensor:
    """A stand-in for the UNet: it depends on its input, so that an error grows from step to step."""
    return torch.tanh(slot) + torch.randn(SHAPE, generator=torch.Generator().manual_seed(100 + step))


def run_scheduler(scheduler: Any, steps: int) -> tuple[torch.Tensor, list[float], torch.Tensor]:
    """What diffusers' loop ends with, the timesteps it gave, and the next number of its generator."""
    scheduler = copy.deepcopy(scheduler)
    generator = torch.Generator().manual_seed(7)
    scheduler.set_timesteps(steps)
    latents = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    noise = {"generator": generator} if "generator" in type(scheduler).step.__annotations__ else {}
    for step, timestep in enumerate(scheduler.timesteps):
        predicted = answer(scheduler.scale_model_input(latents, timestep), step)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False, **noise)[0]
    return latents, scheduler.timesteps.tolist(), torch.rand(1, generator=generator)


def run_table(table: SchedulerTable) -> tuple[torch.Tensor, list[float], torch.Tensor]:
    """The same by the table alone, in float32 as on a GPU."""
    assert table.coefficients is not None
    generator = torch.Generator().manual_seed(7)
    states = [torch.zeros(SHAPE)] * X_TERMS
    outputs = [torch.zeros(SHAPE)] * OUTPUT_TERMS
    states = [torch.randn(SHAPE, generator=generator) * table.init_noise_sigma, *states[1:]]
    for step, scale in enumerate(table.input_scales.tolist()):
        outputs = [answer(states[0] * scale, step), *outputs[:-1]]
        noise = torch.randn(SHAPE, generator=generator) if table.draws[step] else torch.zeros(SHAPE)
        terms = torch.stack([*states, *outputs, noise])
        slot = torch.from_numpy(table.coefficients[step]).float()
        states = [torch.einsum("t,t...->...", slot, terms), *states[:-1]]
    return states[0], table.timesteps.tolist(), torch.rand(1, generator=generator)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_is_compiled_and_its_table_paints_what_it_paints(
    name: str, prediction_type: str
) -> None:
    scheduler = scheduler_of(name, prediction_type)
    for steps in (1, 2, 3, 10, 25):
        table = compile_scheduler(scheduler, steps)
        assert (table.reason, table.coefficients is None) == ("", False), steps
        expected, timesteps, next_number = run_scheduler(scheduler, steps)
        latents, found, ours = run_table(table)
        assert found == timesteps
        difference = float((latents - expected).abs().max())
        # float32 rounds the start, up to 60, by its own size. In two or three steps Heun and DPM2 a multiply
        # that by a sigma of 14.6 over one of 0.03, in diffusers too.
        tolerance = 2e-6 if steps > 3 else 2e-5
        assert difference <= tolerance * max(4 * table.init_noise_sigma, float(expected.abs().max())), steps
        assert torch.equal(next_number, ours), f"{steps} steps leave the generator elsewhere"


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ["DDIM", "PNDM", "Heun", "DPM++ 2M Karras", "UniPC"])
def test_every_spacing_of_the_timesteps_is_compiled(name: str, spacing: str) -> None:
    scheduler = scheduler_of(name, timestep_spacing=spacing)
    table = compile_scheduler(scheduler, 10)
    assert table.reason == ""
    assert table.timesteps.tolist() == run_scheduler(scheduler, 10)[1]


def test_a_table_reaches_no_further_back_than_the_first_step() -> None:
    for name in NAMES:
        table = compile_scheduler(scheduler_of(name, "v_prediction"), 10)
        assert table.coefficients is not None
        assert table.coefficients.shape == (table.forwards, TERMS)
        for step in range(min(3, table.forwards)):
            assert not table.coefficients[step, step + 1 : X_TERMS].any(), (name, step)
            assert not table.coefficients[step, X_TERMS + step + 1 : -1].any(), (name, step)


def test_a_term_that_counts_for_nothing_is_zero_and_not_what_fitting_left_of_it() -> None:
    for name in NAMES:
        coefficients = compile_scheduler(scheduler_of(name), 10).coefficients
        assert coefficients is not None
        dust = (coefficients != 0) & (np.abs(coefficients) < 1e-10)
        assert not dust.any(), (name, coefficients[dust])


def test_ddim_has_the_coefficients_of_its_paper() -> None:
    scheduler = scheduler_of("DDIM")
    table = compile_scheduler(scheduler, 10)
    assert table.coefficients is not None
    alphas = scheduler.alphas_cumprod.double().numpy()
    now, then = alphas[901], alphas[801]
    expected = np.zeros(TERMS)
    expected[0] = np.sqrt(then / now)
    expected[X_TERMS] = np.sqrt(1 - then) - np.sqrt(then / now) * np.sqrt(1 - now)
    assert table.timesteps[:2].tolist() == [901, 801]
    assert table.coefficients[0] == pytest.approx(expected, abs=1e-6)


def test_noise_is_drawn_where_the_scheduler_draws_it_though_it_counts_for_nothing() -> None:
    table = compile_scheduler(scheduler_of("DPM2 a"), 10)
    assert table.coefficients is not None
    assert table.draws.tolist() == [step % 2 == 1 for step in range(18)] + [False]
    ancestral = compile_scheduler(scheduler_of("Euler a"), 10)
    assert ancestral.coefficients is not None
    assert ancestral.draws.all()
    assert ancestral.coefficients[-1, -1] == 0
    assert not compile_scheduler(scheduler_of("Euler"), 10).draws.any()


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        (DPMSolverMultistepScheduler(**BETAS, thresholding=True), "thresholding"),
        (DDIMScheduler(**BETAS, clip_sample=True), "clip_sample"),
        (DDPMScheduler(**BETAS, clip_sample=True), "clip_sample"),
        (PNDMScheduler(**BETAS), "step 12 does not fit"),
        (
            DDIMScheduler(
                **BETAS, clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing"
            ),
            "step 0 is not finite",
        ),
    ],
    ids=["thresholding", "clip_sample", "clip_sample of DDPM", "Runge-Kutta", "division by zero"],
)
def test_what_has_no_table_says_why_and_can_still_be_driven(scheduler: Any, reason: str) -> None:
    table = compile_scheduler(scheduler, 10)
    assert table.coefficients is None
    assert table.reason.startswith(reason)
    assert table.timesteps.tolist() == run_scheduler(scheduler, 10)[1]
    assert table.input_scales.tolist() == [1.0] * table.forwards
    assert table.init_noise_sigma == 1.0


class Clamped(DDIMScheduler):  # type: ignore[misc]
    """Linear as far as basis vectors reach, and no further."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        return (super().step(*args, **kwargs)[0].clamp(-2, 2),)


class Noisy(DDPMScheduler):  # type: ignore[misc]
    def step(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Any:
        torch.randn(3, generator=generator)
        return super().step(*args, generator=generator, **kwargs)


def test_a_step_that_only_looks_linear_is_found_by_running_the_scheduler_itself() -> None:
    table = compile_scheduler(Clamped(**BETAS, clip_sample=False), 10)
    assert table.coefficients is None
    assert "from the scheduler's own run" in table.reason


def test_a_step_that_draws_twice_has_no_table() -> None:
    assert compile_scheduler(Noisy(**BETAS, clip_sample=False), 10).reason == "step 0 draws noise 2 times"


@pytest.mark.parametrize("name", ["LMS", "PNDM", "Euler a", "Heun", "DPM++ 3M", "DPM++ 2M SDE", "UniPC"])
def test_the_check_sees_a_coefficient_that_is_wrong_by_a_hundredth_part(name: str) -> None:
    scheduler = scheduler_of(name, "v_prediction")
    table = compile_scheduler(scheduler, 10)
    assert table.coefficients is not None
    assert difference_from_scheduler(table, scheduler, 10) < CHECK_TOLERANCE
    for step in range(table.forwards):
        wrong = table.coefficients.copy()
        wrong[step, np.abs(wrong[step]).argmax()] *= 1.01
        changed = dataclasses.replace(table, coefficients=wrong)
        assert difference_from_scheduler(changed, scheduler, 10) > CHECK_TOLERANCE, step


def test_the_check_sees_a_scale_and_a_stream_of_noise_that_are_wrong() -> None:
    scheduler = scheduler_of("Euler a")
    table = compile_scheduler(scheduler, 10)
    draws = table.draws.copy()
    draws[3] = False
    for wrong in (
        dataclasses.replace(table, draws=draws),
        dataclasses.replace(table, input_scales=table.input_scales * 1.01),
    ):
        assert difference_from_scheduler(wrong, scheduler, 10) > CHECK_TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_scheduler_given_is_left_as_it_was(name: str) -> None:
    scheduler = scheduler_of(name)
    scheduler.set_timesteps(7)
    before = pickle.dumps(vars(scheduler))
    compile_scheduler(scheduler, 5)
    assert pickle.dumps(vars(scheduler)) == before


def test_a_noise_schedule_that_was_changed_by_hand_has_another_table() -> None:
    scheduler = scheduler_of("DDIM")
    table = compile_scheduler(scheduler, 10)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**2
    changed = compile_scheduler(scheduler, 10)
    assert changed.coefficients is not None
    assert table.coefficients is not None
    assert not np.allclose(changed.coefficients, table.coefficients)


def test_a_table_without_coefficients_has_nothing_to_be_checked() -> None:
    scheduler = DDIMScheduler(**BETAS, thresholding=True)
    with pytest.raises(ValueError, match="no coefficients: thresholding"):
        difference_from_scheduler(compile_scheduler(scheduler, 3), scheduler, 3)


drawn_meanwhile: list[torch.Tensor] = []


class Watched(DDPMScheduler):  # type: ignore[misc]
    """Another thread draws noise in the midst of every step."""

    def step(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Any:
        other = threading.Thread(
            target=lambda: drawn_meanwhile.append(torch.randn(3, generator=torch.Generator().manual_seed(5)))
        )
        other.start()
        other.join()
        return super().step(*args, generator=generator, **kwargs)


def test_the_noise_of_other_threads_is_left_alone() -> None:
    drawn_meanwhile.clear()
    assert compile_scheduler(Watched(**BETAS, clip_sample=False), 3).reason == ""
    expected = torch.randn(3, generator=torch.Generator().manual_seed(5))
    assert len(drawn_meanwhile) == 6
    assert all(torch.equal(noise, expected) for noise in drawn_meanwhile)
