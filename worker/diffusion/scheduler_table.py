"""Any linear diffusers scheduler as a table of coefficients, found by running its own step() once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

X_TERMS = 4
OUTPUT_TERMS = 4
TERMS = X_TERMS + OUTPUT_TERMS + 1
"""Past states, past model outputs (the newest first in both) and the step's fresh noise."""

FIT_TOLERANCE = 1e-12
"""Largest residual of a step, as a part of the new state's norm. In float64 a step that has the form leaves
at most 1e-14 (all samplers to 50 steps, most to 400); what is left out below this is far under 6e-8,
float32's rounding."""

CHECK_TOLERANCE = 1e-4
"""Largest difference from the scheduler's own step, which rounds to float32, as a part of the largest state.
1.2e-5 is the most that was seen (two steps of DPM2 a, which divide what 14.6 has rounded by a sigma of 0.03)
and 1e-6 is common; a step's main coefficient that is wrong by a hundredth gives 4e-4 and more."""


@dataclass(frozen=True, slots=True, eq=False)
class SchedulerTable:
    """A scheduler at one number of inference steps, run by K forwards of the UNet.

    x_0 is standard normal noise times `init_noise_sigma`; e_k is the (guided) output of the UNet for
    x_k * input_scales[k] at timesteps[k]; n_k is standard normal. With c = coefficients,

        x_{k+1} = sum_i c[k,i] x_{k-i}  +  sum_j c[k,4+j] e_{k-j}  +  c[k,8] n_k

    and what would lie before step 0 has the coefficient 0.
    """

    timesteps: np.ndarray
    """[K] float64: what the UNet is given; Heun and others take more forwards than inference steps."""
    input_scales: np.ndarray
    """[K] float64."""
    init_noise_sigma: float
    coefficients: np.ndarray | None
    """[K,TERMS] float64; None when the scheduler object itself has to step."""
    draws: np.ndarray
    """[K] bool: step k takes noise from the generator, also where its coefficient is 0, so that the
    generator's stream is diffusers' own."""
    reason: str
    """Why there are no coefficients; empty when there are."""

    @property
    def forwards(self) -> int:
        """K."""
        return len(self.timesteps)


def compile_scheduler(scheduler: Any, num_inference_steps: int) -> SchedulerTable:
    """The table of a diffusers scheduler, which is left as it is.

    Takes a tenth of a second or so: `CompiledSchedulers` keeps tables. What step() raises (it would raise in
    diffusers' pipeline, too) is raised here.
    """
    table, states, drawn = _run_on_basis(scheduler, num_inference_steps)
    for setting in ("thresholding", "clip_sample"):
        if scheduler.config.get(setting):
            return replace(table, reason=setting)
    if drawn.max() > 1:
        return replace(table, reason=f"step {drawn.argmax()} draws noise {drawn.max()} times")
    if not np.isfinite(states).all():
        return replace(table, reason=f"step {np.isfinite(states).all(1).argmin() - 1} is not finite")
    coefficients = np.zeros((table.forwards, TERMS))
    for step in range(table.forwards):
        coefficients[step], residual = _fit(states, step)
        if not residual <= FIT_TOLERANCE:
            return replace(table, reason=f"step {step} does not fit: a residual of {residual:.1e}")
    fitted = replace(table, coefficients=coefficients)
    difference = difference_from_scheduler(fitted, scheduler, num_inference_steps)
    if not difference <= CHECK_TOLERANCE:
        return replace(table, reason=f"differs by {difference:.1e} from the scheduler's own run")
    return fitted


class _BasisNoise(TorchFunctionMode):
    """Gives step() the noise it is meant to see, and keeps it in float64.

    Euler's and SDE's step() casts the sample to float32, which would round the coefficients to 1e-7. The mode
    holds for its own thread alone; replacing diffusers' functions would change them for every thread.
    """

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.drawn = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            self.drawn += 1
            return self.noise
        if func is torch.Tensor.to and args[0].shape == self.noise.shape:
            return args[0]
        return func(*args, **kwargs)


def _run_on_basis(scheduler: Any, num_inference_steps: int) -> tuple[SchedulerTable, np.ndarray, np.ndarray]:
    """Run a copy of `scheduler` on the basis of R^(1+2K): the first state, K model outputs, K noises.

    Returns the table without coefficients, the states [K+1,1+2K] as what they are made of, and how often
    each step drew noise [K].
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_inference_steps, device="cpu")
    timesteps = scheduler.timesteps
    init_noise_sigma = float(scheduler.init_noise_sigma)
    forwards = len(timesteps)
    # Four axes, since thresholding looks for channels.
    basis = torch.eye(1 + 2 * forwards, dtype=torch.float64).view(-1, 1, 1, 1, 1 + 2 * forwards)
    ones = torch.ones_like(basis[0])
    states, scales = [basis[0]], []
    drawn = np.zeros(forwards, dtype=np.int64)
    options = _generator_option(scheduler, torch.Generator())
    for step, timestep in enumerate(timesteps):
        scales.append(scheduler.scale_model_input(ones, timestep).flatten()[0].item())
        with _BasisNoise(basis[1 + forwards + step]) as noise:
            state = scheduler.step(basis[1 + step], timestep, states[-1], return_dict=False, **options)[0]
        states.append(state)
        drawn[step] = noise.drawn
    table = SchedulerTable(
        timesteps.numpy().astype(np.float64), np.array(scales), init_noise_sigma, None, drawn > 0, ""
    )
    return table, torch.stack(states).flatten(1).numpy(), drawn


def _generator_option(scheduler: Any, generator: torch.Generator) -> dict[str, torch.Generator]:
    takes = "generator" in inspect.signature(scheduler.step).parameters
    return {"generator": generator} if takes else {}


def _fit(states: np.ndarray, step: int) -> tuple[np.ndarray, float]:
    """The coefficients [TERMS] of a step by the fewest past states that explain it, and their residual.

    Where early steps leave a choice, it is the one whose terms are smallest: large ones that cancel would
    multiply the rounding of a float32 state.
    """
    forwards = len(states) - 1
    target = states[step + 1]
    outputs = min(OUTPUT_TERMS, step + 1)
    known = np.zeros((len(target), outputs + 1))
    known[1 + step - np.arange(outputs), np.arange(outputs)] = 1
    known[1 + forwards + step, -1] = 1
    coefficients = np.zeros(TERMS)
    residual = np.inf
    for count in range(1, min(X_TERMS, step + 1) + 1):
        terms = np.column_stack([*(states[step - age] for age in range(count)), known])
        norms = np.linalg.norm(terms, axis=0)
        parts = np.linalg.lstsq(terms / norms, target)[0]
        # Rounding leaves a small value for a term that is not there; such a term must be 0.
        parts[np.abs(parts) < FIT_TOLERANCE * np.linalg.norm(target)] = 0.0
        found = parts / norms
        residual = float(np.linalg.norm(terms @ found - target) / np.linalg.norm(target))
        if residual <= FIT_TOLERANCE:
            coefficients[:count] = found[:count]
            coefficients[X_TERMS : X_TERMS + outputs] = found[count:-1]
            coefficients[-1] = found[-1]
            break
    return coefficients, residual


def difference_from_scheduler(table: SchedulerTable, scheduler: Any, num_inference_steps: int) -> float:
    """How far `table` goes in one step from a copy of `scheduler`, which rounds to float32 as in diffusers.

    The states are the scheduler's own, so that an error is seen where it is made and an unstable solver's
    growing rounding (LMS at 100 steps) is not taken for one; both draw from generators of one seed, and the
    model is a stand-in whose answers depend on the state. Returns the largest difference in a state or a
    model input, as a part of the largest value of that step and of the states it may use. Raises ValueError
    for a table without coefficients.
    """
    if table.coefficients is None:
        raise ValueError(f"the table has no coefficients: {table.reason}")
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_inference_steps, device="cpu")
    shape = (1, 4, 8, 8)
    theirs, ours, model = (torch.Generator().manual_seed(seed) for seed in (0, 0, 1))
    options = _generator_option(scheduler, theirs)
    states = [torch.randn(shape, generator=model) * scheduler.init_noise_sigma]
    outputs: list[torch.Tensor] = []
    largest_difference = 0.0
    for step, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(states[-1], timestep)
        outputs.append(torch.tanh(model_input) + torch.randn(shape, generator=model))
        state = scheduler.step(outputs[-1], timestep, states[-1], return_dict=False, **options)[0]
        noise = torch.randn(shape, generator=ours) if table.draws[step] else torch.zeros(shape)
        past_states, past_outputs = states[: -X_TERMS - 1 : -1], outputs[: -OUTPUT_TERMS - 1 : -1]
        coefficients = table.coefficients[step]
        found = coefficients[-1] * noise.double()
        for coefficient, term in [
            *zip(coefficients[:X_TERMS], past_states, strict=False),
            *zip(coefficients[X_TERMS:-1], past_outputs, strict=False),
        ]:
            found = found + coefficient * term.double()
        largest = max(float(each.abs().max()) for each in (state, *past_states))
        scaled = states[-1].double() * table.input_scales[step]
        for expected, got in ((state, found), (model_input, scaled)):
            largest_difference = max(largest_difference, float((got - expected).abs().max()) / largest)
        states.append(state)
    return largest_difference
