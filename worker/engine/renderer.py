"""What the engine needs from a renderer: its protocol, its pictures, what rendered them. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from jobs.adapters import NO_ADAPTERS, Adapters
from jobs.errors import ImagemillError
from jobs.inputs.inputs import Inputs
from jobs.models.further_models import FurtherRole
from jobs.request import ImageRequest

Batching = Literal["exact", "fast", "alone"]
"""How a renderer's images share forwards: the strictest mode in which they can.

exact: an image's bytes follow from its request, whatever shares its forwards; fast: they follow from the
others too, so only jobs of `mode: fast` are rendered; alone: they cannot, so every forward is of one image.
"""


class Stopped(Exception):
    """The caller's `stop` became true: rendering ended between two steps."""


class OutOfMemory(Exception):
    """The device has no memory for so many slots."""


class BrokenDevice(Exception):
    """The device itself is in error: this process can render nothing more."""


@dataclass(frozen=True, slots=True)
class FurtherModel:
    """A model that works beside a pipeline."""

    role: FurtherRole
    model: str
    """What a worker loads: a hub id or an absolute folder."""
    revision: str


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What has to be loaded."""

    model: str
    revision: str
    precision: str
    further: tuple[FurtherModel, ...] = ()
    """What has to be loaded beside it, in the order of the manifest."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What images must have in common to share a forward."""

    pipeline: Pipeline
    height: int
    width: int
    slots: int
    """Slots of every forward."""
    mode: Literal["exact", "fast"] = "exact"
    """exact: always all the slots, so that bytes follow from the request; fast: free slots are left out."""
    task: str = ""
    """What keeps images from sharing forwards with those of text alone: `Renderer.task`."""
    adapters: Adapters = NO_ADAPTERS
    """What the model carries."""

    @property
    def kind(self) -> tuple[Pipeline, int, int]:
        """Pipeline, height and width: what the memory and the time of a slot depend on."""
        return self.pipeline, self.height, self.width


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image; not `finite` where its latents or its decoded values were NaN or infinite."""

    pixels: np.ndarray
    """uint8 [H,W,3]."""
    finite: bool
    prompt_cut: str | None = None
    """The end of the prompt that the model's window had no room for; None where all of it was encoded."""


@dataclass(frozen=True, slots=True)
class RenderedBy:
    """What a picture's bytes depend on besides its request."""

    precision: str
    """bf16, fp16, amp, fp32; never auto."""
    rows: int
    """Slots of one forward; the metadata has always called them rows."""
    device: str
    """The kind of device: the GPU's name, or the CPU's, its instructions and the threads of a forward."""
    versions: Mapping[str, str]
    """Packages and their versions: torch, diffusers, transformers, pillow, imagemill."""
    mode: str = "exact"
    """fast: pictures may differ in a bit, by what happened to be rendered with them. alone: nothing was, in
    whichever mode the job was; `rows` are the slots that the picture takes."""


class Asked(Protocol):
    """An image that is asked for."""

    @property
    def request(self) -> ImageRequest: ...

    @property
    def inputs(self) -> Inputs:
        """Where the files are that the request names."""


AskedT = TypeVar("AskedT", bound=Asked)
Given_co = TypeVar("Given_co", bound=Asked, covariant=True)

Painted = tuple[AskedT, Picture | ImagemillError]
"""An image that left the slots: its picture, or the error of a request that cannot be rendered."""


class Source(Protocol[Given_co]):
    """Where a renderer gets the images of one bucket from."""

    def take(self, free_slots: int) -> Sequence[Given_co]:
        """The images that enter now, at most so many slots of them, by `Renderer.slots`."""

    def upcoming(self, count: int) -> Sequence[Given_co]:
        """About the next `count` that will be taken."""


class Renderer(Protocol):
    """Paints what a source gives. Not thread-safe: one thread touches it."""

    @property
    def device(self) -> str:
        """The kind of device, as in `RenderedBy`."""

    @property
    def precision(self) -> str:
        """bf16, fp16, amp, fp32; never auto."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages and their versions."""

    @property
    def batching(self) -> Batching:
        """How its images share forwards."""

    def task(self, request: ImageRequest) -> str:
        """ "" where the image may share forwards with those of text alone; else equal for those that may
        share some."""

    def slots(self, request: ImageRequest) -> int:
        """The slots of a forward that the image takes, 1 or more; what `Source.take` counts by."""

    def forwards(self, request: ImageRequest) -> int:
        """How many forwards the image stays in its slots; what `Source.take` goes by."""

    def measure_slots(self, height: int, width: int) -> int:
        """The slots that suit pictures of this size on this device, measured. Raises OutOfMemory."""

    def render(
        self, bucket: Bucket, source: Source[AskedT], stop: Callable[[], bool]
    ) -> Iterator[Sequence[Painted[AskedT]]]:
        """Paint until the source gives no more; yields after each step what it finished, often nothing.

        An image's bytes do not depend on the others, unless bucket.mode is fast; exact is asked for only
        where `batching` allows it. An image's own error stands in its picture's place. Raises Stopped once
        stop() is true and what was finished by then was yielded, OutOfMemory, BrokenDevice; the cause of
        anything else that it raises may be one of the images that were taken and not yet yielded.
        """

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        """The picture by itself, in as few slots as it takes and fp32: for one that was bad among others."""


def rendered_by(renderer: Renderer, bucket: Bucket, request: ImageRequest) -> RenderedBy:
    """What the bytes of a picture that was rendered in a bucket depend on besides its request."""
    alone = renderer.batching == "alone"
    return RenderedBy(
        precision=renderer.precision,
        rows=renderer.slots(request) if alone else bucket.slots,
        device=renderer.device,
        versions=renderer.versions,
        mode="alone" if alone else bucket.mode,
    )


def first_line(error: Exception) -> str:
    """An error's class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
