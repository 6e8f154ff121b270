"""In an image's steps the host of a GPU waits for nothing that diffusers' own loop does not wait for."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from tests.waiting import LONGEST
from tests.warm_python import warm_painter
from worker.diffusion.host_timesteps import read_on_the_host

XL = "StableDiffusionXLPipeline"
COUNTED = (
    f"{XL}:DDIM",
    f"{XL}:Euler",
    f"{XL}:Euler a",
    "FluxPipeline:default",
    "StableDiffusion3Pipeline:default",
    "PixArtSigmaPipeline:default",
)

Waits = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def waits() -> Waits:
    """Of an image from its third step on, by diffusers' own call and by interception."""
    command = [sys.executable, "-m", "tests.pretended_gpu", *COUNTED]
    root = Path(__file__).parents[3]
    counted = warm_painter().call(command, cwd=root, env=os.environ, timeout=10 * LONGEST)
    assert counted.returncode == 0, counted.stderr
    found: Waits = json.loads(counted.stdout.splitlines()[-1])
    return found


def test_interception_adds_no_wait_to_those_of_the_pipeline_s_own_loop(waits: Waits) -> None:
    assert set(waits) == set(COUNTED)
    assert all(one["interception"] <= one["diffusers"] for one in waits.values()), waits


def test_samplers_that_look_timesteps_up_wait_no_more(waits: Waits) -> None:
    assert waits[f"{XL}:DDIM"]["diffusers"] >= 3, "it counts them"
    assert [one["interception"] for name, one in waits.items() if "Euler a" not in name] == [0] * 5


def test_noise_of_the_request_s_own_generator_is_the_one_thing_that_a_step_waits_for(waits: Waits) -> None:
    """From the third step of six to the last forward: three copies."""
    assert waits[f"{XL}:Euler a"]["interception"] == 3


def test_pictures_are_as_on_the_cpu(waits: Waits) -> None:
    assert all(one["difference"] < 1e-4 for one in waits.values()), waits


def test_a_scheduler_on_the_cpu_takes_the_same_steps_and_shows_the_same_arguments() -> None:
    plain, reading = DDIMScheduler(), DDIMScheduler()
    read_on_the_host(reading)
    assert inspect.signature(reading.step) == inspect.signature(plain.step)
    found = []
    for scheduler in (plain, reading):
        scheduler.set_timesteps(3, device="cpu")
        latents = torch.ones(1, 4, 2, 2)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(scheduler.scale_model_input(latents, timestep) / 2, timestep, latents)[0]
        found.append(latents)
    assert torch.equal(*found)


def test_what_has_no_timesteps_is_left_alone() -> None:
    part = object()
    read_on_the_host(part)
    read_on_the_host(None)
    assert not hasattr(part, "step")
