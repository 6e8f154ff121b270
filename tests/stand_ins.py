"""What stands in tests for something larger."""

from __future__ import annotations

import numpy as np

from jobs.request import ImageRequest
from tests.held_inputs import HeldInputs
from worker.renderers.instant import InstantRenderer


def drawn(request: ImageRequest) -> np.ndarray:
    """The pixels that the model `instant` gives a request: height x width x 3, uint8."""
    return InstantRenderer(0.0).render_alone(request, _Anything(), lambda: False).pixels


class _Anything(HeldInputs):
    """Inputs that have a file for every hash: the stand-in looks at none of them."""

    def latents(self, sha256: str) -> np.ndarray:
        return np.zeros((4, 1, 1), np.float32)

    def contents(self, sha256: str) -> bytes:
        return b""
