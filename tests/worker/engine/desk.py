"""A stand-in renderer, and a desk that places orders with an engine and keeps what comes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jobs.errors import ImagemillError, RenderError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from tests.held_inputs import LATENTS, holding
from tests.waiting import LONGEST
from worker.engine.engine import Engine
from worker.engine.renderer import (
    Batching,
    Bucket,
    OutOfMemory,
    Picture,
    Pipeline,
    Source,
    Stopped,
)
from worker.engine.request_queue import Finished, Order, Outcome

CATS, DOGS = Pipeline("cats", "1", "auto"), Pipeline("dogs", "1", "auto")
BUCKET = Bucket(CATS, 8, 8, slots=4)
Wait = Callable[..., None]
Start = Callable[..., Engine]


class Painter:
    """A renderer whose pixels show the seed; the prompt says what goes wrong."""

    device, precision = "cpu", "bf16"
    versions: Mapping[str, str] = {}

    def __init__(
        self,
        gate: threading.Event | None = None,
        fits: int = 1024,
        *,
        batching: Batching = "exact",
        guided: int = 2,
    ) -> None:
        """fits: slots that the memory has room for. guided: slots of a guided image."""
        self.gate, self.fits = gate, fits
        self.batching, self.guided = batching, guided
        self.entered = threading.Event()
        self.steps: list[list[int]] = []
        """The seeds in the slots of each forward."""
        self.buckets: list[Bucket] = []
        """Of each call of render."""
        self.alone: list[int] = []

    def task(self, request: ImageRequest) -> str:
        return ""

    def slots(self, request: ImageRequest) -> int:
        return self.guided if request.guided else 1

    def forwards(self, request: ImageRequest) -> int:
        return request.num_inference_steps

    def measure_slots(self, height: int, width: int) -> int:
        return 4

    def render(
        self, bucket: Bucket, source: Source[Order], stop: Callable[[], bool]
    ) -> Iterator[list[tuple[Order, Picture | ImagemillError]]]:
        self.buckets.append(bucket)
        left: dict[Order, int] = {}
        while True:
            free = bucket.slots - sum(self.slots(order.request) for order in left)
            left |= {order: order.request.num_inference_steps for order in source.take(free)}
            if not left:
                return
            assert sum(self.slots(order.request) for order in left) <= bucket.slots
            assert all(replace(order.bucket, slots=bucket.slots) == bucket for order in left)
            self.steps.append([order.request.seed for order in left])
            self.entered.set()
            while self.gate is not None and not self.gate.wait(0.01):
                if stop():
                    raise Stopped
            if stop():
                raise Stopped
            if bucket.slots > self.fits and len(self.steps) > 1:
                raise OutOfMemory("tried to allocate 20 GiB")
            if any(order.request.prompt == "raise" for order in left):
                raise RuntimeError("index out of range\nsecond line")
            left = {order: count - 1 for order, count in left.items()}
            yield [(order, paint(order.request, alone=False)) for order, count in left.items() if not count]
            left = {order: count for order, count in left.items() if count}

    def render_alone(self, request: ImageRequest, inputs: Inputs, stop: Callable[[], bool]) -> Picture:
        self.alone.append(request.seed)
        if request.prompt == "raise":
            raise RuntimeError("index out of range")
        picture = paint(request, alone=True)
        assert isinstance(picture, Picture)
        return picture


def paint(request: ImageRequest, *, alone: bool) -> Picture | ImagemillError:
    if request.prompt == "refused":
        return RenderError("no such number of steps")
    pixels = np.full((8, 8, 3), request.seed, np.uint8)
    if request.prompt == "flat" or (request.prompt == "flat among others" and not alone):
        return Picture(pixels, finite=True)
    pixels[0, 0] = 255
    nan = request.prompt == "nan" or (request.prompt == "nan among others" and not alone)
    return Picture(pixels, finite=not nan)


class Desk:
    """Places orders and keeps what came of each, by its seed."""

    def __init__(self, bucket: Bucket = BUCKET) -> None:
        self.bucket = bucket
        self.outcomes: dict[int, Outcome] = {}
        self.deliveries: list[int] = []

    def order(
        self,
        seed: int,
        prompt: str = "",
        *,
        bucket: Bucket | None = None,
        steps: int = 1,
        guidance: float = 1.0,
        init_latents: np.ndarray | None = None,
        **settings: Any,
    ) -> Order:
        bucket = self.bucket if bucket is None else bucket
        inputs: Inputs = NO_INPUTS
        if init_latents is not None:
            settings["init_latents"], inputs = LATENTS, holding(init_latents)
        request = ImageRequest(
            prompt=prompt,
            seed=seed,
            model=bucket.pipeline.model,
            revision=bucket.pipeline.revision,
            height=bucket.height,
            width=bucket.width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            **settings,
        )

        def deliver(outcome: Outcome) -> None:
            self.outcomes[seed] = outcome
            self.deliveries.append(seed)

        return Order(bucket, request, inputs, deliver)

    def finished(self, seed: int) -> Finished:
        outcome = self.outcomes[seed]
        assert isinstance(outcome, Finished), outcome
        return outcome

    def seed_painted(self, seed: int) -> int:
        """The seed that the picture delivered for `seed` shows."""
        return int(self.finished(seed).picture.pixels[7, 7, 0])


def slow_orders(gate: threading.Event, delivered: list[int], count: int) -> list[Order]:
    """Orders whose pictures take as long to write as the gate is closed."""

    def order(seed: int) -> Order:
        def deliver(_outcome: Outcome) -> None:
            gate.wait(LONGEST)
            delivered.append(seed)

        return replace(Desk().order(seed), deliver=deliver)

    return [order(seed) for seed in range(count)]
