"""Models over the parts of a pipeline, and diffusers' own pipeline over the same parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, LMSDiscreteScheduler, StableDiffusionPipeline

from worker.image_diffusion_model import ImageDiffusionModel

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPTS = ["a red circle", "two blue stars on the left"]
SIZE = {"height": 64, "width": 64}


def model_of(pipe: Any, precision: str = "fp32") -> ImageDiffusionModel:
    return ImageDiffusionModel(
        vae=pipe.vae,
        tokenizer=pipe.tokenizer,
        text_encoder=pipe.text_encoder,
        unet=pipe.unet,
        scheduler_LMS=LMSDiscreteScheduler(**BETAS),
        scheduler_DDIM=DDIMScheduler(**BETAS),
        device="cpu",
        precision=precision,
    )


def reference(pipe: Any, scheduler: Any) -> Any:
    """diffusers' pipeline over the same parts, made by its constructor around a scheduler of its own."""
    parts = {**pipe.components, "scheduler": scheduler}
    made = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def floats(model: ImageDiffusionModel, latents: torch.Tensor) -> np.ndarray:
    """[B,H,W,3], 0 .. 1, as diffusers' output_type="np"."""
    return (model.decode_img_latents(latents) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
