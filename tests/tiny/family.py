"""A family of diffusers pipelines, as the tests know it: how a tiny one is built, and what its call takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline


@dataclass(frozen=True, slots=True)
class Family:
    """One class of diffusers, with a tiny pipeline of random weights that paints in no time."""

    class_name: str
    """diffusers' class."""
    build: Callable[[], DiffusionPipeline]
    """A new pipeline on the CPU in float32, the same weights every time; see `random_weights`."""
    height: int
    """Pixels of its pictures; so is the width."""
    width: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the call needs besides, such as a short `max_sequence_length`."""
    variant: str = ""
    """What tells it from the other family of its class."""
    amplifies: str = ""
    """Why its sampler amplifies rounding, for the few families whose pictures are compared less closely."""

    @property
    def name(self) -> str:
        """The class's name, with the variant's."""
        return f"{self.class_name}-{self.variant}" if self.variant else self.class_name


@contextmanager
def random_weights(seed: int = 1) -> Iterator[None]:
    """Weights made inside are the same every time; torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
