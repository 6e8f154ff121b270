"""The stand-in renderer `instant`: cheap pictures without torch, for tests and for measuring the queue."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from jobs.errors import ImagemillError
from jobs.inputs.inputs import Inputs
from jobs.output.metadata import imagemill_version
from jobs.request import PICTURES, ImageRequest
from jobs.schedulers import forwards
from worker.engine.renderer import Asked, AskedT, Batching, Bucket, Painted, Picture, Source, Stopped

_SLOTS = 16
_BLOCKS = 8
_NAP = 0.02


class InstantRenderer:
    """Draws colour blocks that follow from the image_id, after `seconds` a micro-batch."""

    batching: Batching = "exact"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.device, self.precision = "cpu", "fp32"
        self.versions = {"imagemill": imagemill_version()}

    def task(self, request: ImageRequest) -> str:
        """All images share forwards."""
        return ""

    def slots(self, request: ImageRequest) -> int:
        """Two for a guided image, as in Stable Diffusion."""
        return 2 if request.guided else 1

    def forwards(self, request: ImageRequest) -> int:
        """What Stable Diffusion takes, as `plan` counts it; the image leaves after one micro-batch."""
        return forwards(request.scheduler, request.num_inference_steps)

    def measure_slots(self, height: int, width: int) -> int:
        """Always the same: there is nothing to measure."""
        return _SLOTS

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[list[Painted[AskedT]]]:
        """The pictures of one micro-batch after another."""
        while asked := source.take(bucket.slots):
            self._wait(stop)
            yield [(one, _outcome(one)) for one in asked]

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        """The same picture as among others."""
        self._wait(stop)
        _read(request, inputs)
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


def _outcome(one: Asked) -> Picture | ImagemillError:
    try:
        _read(one.request, one.inputs)
    except ImagemillError as error:
        return error
    return _draw(one.request)


def _read(request: ImageRequest, inputs: Inputs) -> None:
    """Reads the files that a request names as a real model would. Raises ImagemillError."""
    if request.init_latents is not None:
        inputs.latents(request.init_latents)
    for name in PICTURES:
        if (sha256 := getattr(request, name)) is not None:
            inputs.contents(sha256)


def _draw(request: ImageRequest) -> Picture:
    digest = hashlib.shake_128(request.image_id.encode()).digest(_BLOCKS * _BLOCKS * 3)
    blocks = np.frombuffer(digest, np.uint8).reshape(_BLOCKS, _BLOCKS, 3)
    # Sizes are multiples of 8, so 8 x 8 blocks fill a picture evenly.
    pixels = blocks.repeat(request.height // _BLOCKS, 0).repeat(request.width // _BLOCKS, 1)
    return Picture(pixels, finite=True)
