"""The stand-in renderer `instant`: cheap pictures without torch, for tests and for measuring the queue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from jobs.metadata import imagemill_version
from jobs.request import ImageRequest
from worker.renderer import (
    Picture,
    RenderedBy,
    Stopped,
    check_batch,
    images_per_batch,
)

_BLOCKS = 8
_NAP = 0.02


class InstantRenderer:
    """Draws colour blocks that follow from the image_id, after `seconds` a micro-batch.

    Prompts that begin with "!raise" raise RuntimeError, with "!black" give one flat colour, with "!nan" give
    a picture that is not finite, alone as in a batch: a test's way to a bad image.
    """

    def __init__(self, rows: int, seconds: float) -> None:
        self._rows = rows
        self._seconds = seconds
        self.rendered_by = RenderedBy(
            precision="fp32", rows=rows, device="cpu", versions={"imagemill": imagemill_version()}
        )

    def batch_size(self, request: ImageRequest) -> int:
        """The images of a full micro-batch of requests like this one; at least 1."""
        return images_per_batch(request, self._rows)

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        """The pictures of one micro-batch, in order; the latents are not looked at."""
        check_batch(requests, init_latents, self._rows)
        self._wait(stop)
        return [_draw(request) for request in requests]

    def halve_rows(self) -> bool:
        """False: the stand-in needs no memory."""
        return False

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        """The same picture as in a batch, and the same misfortune."""
        self._wait(stop)
        return _draw(request)

    def _wait(self, stop: Callable[[], bool]) -> None:
        end = time.monotonic() + self._seconds
        while True:
            if stop():
                raise Stopped
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_NAP, left))


def _draw(request: ImageRequest) -> Picture:
    if request.prompt.startswith("!raise"):
        raise RuntimeError(f"the stand-in model was asked to fail: {request.prompt!r}")
    shape = (request.height, request.width, 3)
    if request.prompt.startswith("!black"):
        return Picture(np.zeros(shape, np.uint8), finite=True)
    digest = hashlib.shake_128(request.image_id.encode()).digest(_BLOCKS * _BLOCKS * 3)
    blocks = np.frombuffer(digest, np.uint8).reshape(_BLOCKS, _BLOCKS, 3)
    # Sizes are multiples of 8, so 8 x 8 blocks fill a picture evenly.
    pixels = blocks.repeat(request.height // _BLOCKS, 0).repeat(request.width // _BLOCKS, 1)
    return Picture(pixels, finite=not request.prompt.startswith("!nan"))
