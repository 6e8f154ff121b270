"""What stands in tests for something larger."""

from __future__ import annotations

import numpy as np

from jobs.inputs import NO_INPUTS
from jobs.request import ImageRequest
from worker.renderers.instant import InstantRenderer


def drawn(request: ImageRequest) -> np.ndarray:
    """The pixels that the model `instant` gives a request: height x width x 3, uint8."""
    return InstantRenderer(0.0).render_alone(request, NO_INPUTS, lambda: False).pixels
