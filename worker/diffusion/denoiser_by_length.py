"""Slots for images whose texts have different numbers of tokens: forwards are of one number at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch

from worker.diffusion.denoiser import Denoiser, LatentImage

_PATIENCE = 200
"""Forwards that an image waits for before nothing else is let in, so that its length has its turn."""


class DenoiserByLength:
    """A denoiser for each length of texts, with as many slots each; used as one `Denoiser` is.

    Images of another length than the one in the slots wait until those have left. While so many wait that
    they fill the slots, or one of them has waited for long, nothing else is let in.
    """

    def __init__(self, denoiser: Callable[[int], Denoiser], tokens: int) -> None:
        """denoiser(tokens): slots for texts of so many tokens. tokens: of most texts."""
        self._made = {tokens: denoiser(tokens)}
        self._make, self._tokens = denoiser, tokens
        self._waiting: deque[LatentImage] = deque()
        self._waited = 0

    @property
    def slots(self) -> int:
        """Slots of every forward."""
        return self._now.slots

    @property
    def free_slots(self) -> int:
        """Slots of images that may enter now, of whatever length."""
        waiting = sum(image.slots for image in self._waiting)
        full = waiting >= self.slots or self._waited >= _PATIENCE
        return 0 if full else min(self._now.free_slots, self.slots - waiting)

    @property
    def running(self) -> int:
        """Images in flight; those that wait are among them."""
        return self._now.running + len(self._waiting)

    def enter(self, image: LatentImage) -> None:
        """Puts an image into free slots, or among those that wait. ValueError when its slots are too few."""
        tokens = len(image.prompt_embeds)
        if not self.running:
            self._turn_to(tokens)
        if tokens == self._tokens:
            self._now.enter(image)
        else:
            self._waiting.append(image)

    def step(self) -> list[tuple[LatentImage, torch.Tensor]]:
        """One forward; gives those that it finished, as `Denoiser.step`."""
        if not self._now.running and self._waiting:
            self._turn_to(len(self._waiting[0].prompt_embeds))
            self._let_in()
        self._waited = self._waited + 1 if self._waiting else 0
        return self._now.step()

    @property
    def _now(self) -> Denoiser:
        return self._made[self._tokens]

    def _turn_to(self, tokens: int) -> None:
        self._tokens, self._waited = tokens, 0
        if tokens not in self._made:
            self._made[tokens] = self._make(tokens)

    def _let_in(self) -> None:
        """Lets those that wait and have this length into the slots, in their order."""
        staying: deque[LatentImage] = deque()
        for image in self._waiting:
            if len(image.prompt_embeds) == self._tokens and image.slots <= self._now.free_slots:
                self._now.enter(image)
            else:
                staying.append(image)
        self._waiting = staying
