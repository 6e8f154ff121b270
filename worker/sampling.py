"""The sampling loop: whole images batched, tensors in, tensors out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch


def sample(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    prompt_embeds: torch.Tensor,
    negative_embeds: torch.Tensor | None,
    *,
    guidance_scales: torch.Tensor,
    generators: Sequence[torch.Generator],
    num_inference_steps: int,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Denoise B latents together, as diffusers' StableDiffusionPipeline denoises them.

    unet: diffusers' UNet2DConditionModel. scheduler: a diffusers scheduler that nobody else uses meanwhile.
    latents: [B,C,h,w] float32, standard normal; they are scaled by the scheduler's init_noise_sigma.
    prompt_embeds, negative_embeds: [B,77,D]; without negative_embeds the images are unguided and each takes
    one row of a forward, with them two: all the negative rows, then all the prompts' rows.
    guidance_scales: [B], for uncond + g * (cond - uncond). generators: one a latent, on the CPU, for the
    noise of stochastic schedulers. on_step(done, total) comes before each forward and once after the last;
    what it raises ends the loop, which is how a caller leaves between two steps.

    Returns [B,C,h,w] float32. The state stays float32 whatever the UNet's weights are: LMS adds up small
    differences of large numbers, which half precision loses.
    """
    guided = negative_embeds is not None
    embeds = prompt_embeds if negative_embeds is None else torch.cat([negative_embeds, prompt_embeds])
    scales = guidance_scales.to(latents).view(-1, 1, 1, 1)
    dtype = unet.dtype
    noise = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        noise["generator"] = list(generators)

    with torch.inference_mode():
        scheduler.set_timesteps(num_inference_steps, device=latents.device)
        total = len(scheduler.timesteps)
        latents = latents * scheduler.init_noise_sigma
        for done, timestep in enumerate(scheduler.timesteps):
            if on_step is not None:
                on_step(done, total)
            rows = scheduler.scale_model_input(latents, timestep).to(dtype)
            if guided:
                rows = torch.cat([rows, rows])
            predicted = unet(rows, timestep, encoder_hidden_states=embeds, return_dict=False)[0].float()
            if guided:
                uncond, cond = predicted.chunk(2)
                predicted = uncond + scales * (cond - uncond)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False, **noise)[0]
        if on_step is not None:
            on_step(total, total)
    return latents
