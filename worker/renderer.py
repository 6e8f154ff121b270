"""What a worker asks of whatever paints: the protocol, its pictures, and who painted them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jobs.request import ImageRequest


class Stopped(Exception):
    """The caller's `stop` said so: the micro-batch was left between two steps and gave no picture."""


class OutOfMemory(Exception):
    """The device has no memory for so many rows."""


class BrokenDevice(Exception):
    """The device itself is in error: this process can render nothing more."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image; not `finite` where its latents or its decoded values were NaN or infinite."""

    pixels: np.ndarray
    """uint8 [H,W,3]."""
    finite: bool


@dataclass(frozen=True, slots=True)
class RenderedBy:
    """What a picture's bytes depend on beside its request."""

    precision: str
    """bf16, fp16, amp, fp32; never auto. Pictures of `render_alone` are fp32 all the same."""
    rows: int
    """Rows of one forward."""
    device: str
    """The kind of device: "cpu", or the GPU's name."""
    versions: Mapping[str, str]
    """Packages and their versions: torch, diffusers, imagemill."""


class Renderer(Protocol):
    """Paints micro-batches of requests. Not thread-safe: one thread touches it."""

    rendered_by: RenderedBy

    def batch_size(self, request: ImageRequest) -> int:
        """The images of a full micro-batch of requests like this one; at least 1."""

    def render(
        self,
        requests: Sequence[ImageRequest],
        init_latents: Sequence[np.ndarray | None],
        stop: Callable[[], bool],
    ) -> list[Picture]:
        """The pictures of one micro-batch, in order; a picture's bytes do not depend on its neighbours.

        requests: 1 .. batch_size of them, with equal `batch_key`. init_latents: [C,h,w] or None for each.
        Raises Stopped when stop() was true before a step, LatentsError for latents of another shape,
        OutOfMemory, and BrokenDevice.
        """

    def halve_rows(self) -> bool:
        """Makes micro-batches half as large from now on; False when they cannot be smaller."""

    def render_alone(
        self, request: ImageRequest, init_latents: np.ndarray | None, stop: Callable[[], bool]
    ) -> Picture:
        """The picture once more, by itself and in fp32: for one that came out bad in its micro-batch."""


BatchKey = tuple[int, int, int, str, bool]


def batch_key(request: ImageRequest) -> BatchKey:
    """Height, width, steps, scheduler, guided: what one whole-image batch must have in common."""
    return (request.height, request.width, request.num_inference_steps, request.scheduler, request.guided)


def images_per_batch(request: ImageRequest, rows: int) -> int:
    """How many images like this one fill `rows` rows; a guided one takes two. At least 1."""
    return max(1, rows // 2 if request.guided else rows)


def check_batch(
    requests: Sequence[ImageRequest], init_latents: Sequence[np.ndarray | None], rows: int
) -> None:
    """Raise ValueError unless these are one micro-batch, as `Renderer.render` asks of its caller."""
    size = images_per_batch(requests[0], rows) if requests else 0
    if not 1 <= len(requests) <= size or len(init_latents) != len(requests):
        raise ValueError(f"{len(requests)} requests, {len(init_latents)} latents: a batch holds 1 .. {size}")
    if len({batch_key(request) for request in requests}) > 1:
        raise ValueError("requests with different keys cannot share a micro-batch")
