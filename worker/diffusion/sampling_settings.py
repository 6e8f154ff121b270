"""How one image is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.request import ImageRequest


@dataclass(frozen=True, slots=True)
class Sampling:
    """What an image's denoising follows from, besides its texts and initial latents."""

    height: int
    """Pixels, a multiple of 8; so is the width."""
    width: int
    num_inference_steps: int
    guidance_scale: float
    """Above 1, guided."""
    scheduler: str
    """A sampler's name or alias."""
    seed: int

    @classmethod
    def of(cls, request: ImageRequest) -> Sampling:
        """The sampling that a request asks for."""
        return cls(
            height=request.height,
            width=request.width,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            scheduler=request.scheduler,
            seed=request.seed,
        )
