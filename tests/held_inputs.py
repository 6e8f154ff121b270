"""Files of requests that are held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jobs.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class HeldInputs:
    """What requests name, by its hash."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    paths: Mapping[str, Path] = field(default_factory=dict)
    """Of adapters, which are not held."""

    def latents(self, sha256: str) -> np.ndarray:
        return self.arrays[sha256]

    def contents(self, sha256: str) -> bytes:
        if sha256 not in self.files:
            raise InputError(f"{sha256}: is missing")
        return self.files[sha256]

    @contextmanager
    def private_copy(self, sha256: str) -> Iterator[Path]:
        if sha256 not in self.paths:
            raise InputError(f"{sha256}: is held in memory")
        yield self.paths[sha256]


LATENTS = "1" * 64
"""Stands for the one array of `holding`."""


def holding(latents: np.ndarray) -> HeldInputs:
    """Inputs of which LATENTS is this array."""
    return HeldInputs({LATENTS: latents})
