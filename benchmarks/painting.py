"""What benchmarks share: a renderer that paints a list of requests, diffusers' own pipeline, and times."""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from jobs.errors import ImagemillError
from jobs.inputs.inputs import NO_INPUTS, Inputs
from jobs.request import ImageRequest
from worker.encode import encode
from worker.engine.renderer import Bucket, Renderer
from worker.image_diffusion_model import ImageDiffusionModel

WRITERS: Final = 8

Painted = Iterator[tuple[np.ndarray, ImageRequest]]
"""Pictures, uint8 [H,W,3], and what each was asked for by."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """An image that the benchmark asks the renderer for."""

    request: ImageRequest
    inputs: Inputs = NO_INPUTS


class Line:
    """Requests in the order given, none after `seconds`: what is in the slots by then is finished."""

    def __init__(self, renderer: Renderer, requests: Iterable[ImageRequest], seconds: float) -> None:
        self._slots = renderer.slots
        self._asked = [Asked(request) for request in requests]
        self._ends = time.perf_counter() + seconds

    def take(self, free_slots: int) -> list[Asked]:
        """The first that fit; none overtakes another, so an image's place follows from the order alone."""
        taken: list[Asked] = []
        while self._asked and time.perf_counter() < self._ends:
            free_slots -= self._slots(self._asked[0].request)
            if free_slots < 0:
                break
            taken.append(self._asked.pop(0))
        return taken

    def upcoming(self, count: int) -> list[Asked]:
        """The next ones."""
        return self._asked[:count]


def by_renderer(
    renderer: Renderer, bucket: Bucket, requests: Iterable[ImageRequest], seconds: float = float("inf")
) -> Painted:
    """Pictures by the product's own loop, in the order in which they end."""
    for outcomes in renderer.render(bucket, Line(renderer, requests, seconds), lambda: False):
        for asked, outcome in outcomes:
            if isinstance(outcome, ImagemillError):
                raise outcome
            if not outcome.finite:
                raise SystemExit("a picture is not finite: no figure would mean anything")
            yield outcome.pixels, asked.request


def save_all(painted: Painted) -> tuple[int, float]:
    """Encodes and writes pictures in threads while they are painted; how many, and the seconds it took."""

    def save(pixels: np.ndarray, request: ImageRequest, file: Path) -> None:
        with file.open("wb") as out:
            out.write(encode(pixels, request))
            out.flush()
            os.fsync(out.fileno())

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(WRITERS) as pool:
        began = time.perf_counter()
        written = [
            pool.submit(save, pixels, request, Path(folder) / f"{request.image_id}.png")
            for pixels, request in painted
        ]
        for each in written:
            each.result()
        return len(written), time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(call: Callable[[], object], device: torch.device, *, calls: int = 1) -> float:
    """The median time of a call after a first one: of 10 samples of `calls` calls, or of those of 5 s."""
    call()
    synchronize(device)
    taken: list[float] = []
    while len(taken) < 10 and sum(taken) < 5.0:
        began = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / calls


def diffusers_pipeline(model: ImageDiffusionModel) -> Any:
    """diffusers' pipeline of the same weights, all in the UNet's number format."""
    pipeline = StableDiffusionPipeline(
        # A copy: the product's VAE stays in float32 under fp16, which the pipeline cannot have.
        vae=copy.deepcopy(model.vae).to(model.precision.weights),
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=copy.deepcopy(model.scheduler_DDIM),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
