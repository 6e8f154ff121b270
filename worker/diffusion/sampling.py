"""The sampling loop: schedule, run, retire; batched by step, tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch

from worker.diffusion.denoiser import LatentImage


class Slots(Protocol):
    """Slots that images enter and leave between forwards: `Denoiser`, `DenoiserByLength`."""

    @property
    def free_slots(self) -> int: ...
    @property
    def running(self) -> int: ...
    def enter(self, image: LatentImage) -> None: ...
    def step(self) -> list[tuple[LatentImage, torch.Tensor]]: ...


def sample(
    denoiser: Slots, take: Callable[[int], Iterable[LatentImage]]
) -> Iterator[list[tuple[LatentImage, torch.Tensor]]]:
    """Denoise what `take` gives until it gives no more, as StableDiffusionPipeline denoises each alone.

    take(free_slots): the images that enter before the next forward, at most so many slots of them. Yields
    after every forward the images that it finished, with their latents [C,h,w] float32: often none. A caller
    that leaves the loop does so between two steps.
    """
    while True:
        for image in take(denoiser.free_slots):
            denoiser.enter(image)
        if not denoiser.running:
            return
        yield denoiser.step()
