"""How a pipeline's images share forwards: learned from a few calls when it is loaded, then proved.

Learning compares the denoisers' calls for one image with those for two (`call_rules`). The proof paints three
images as diffusers does, alone among spare slots, and together in two orders. Another picture refuses the
model; other bytes refuse `mode: exact`; where nothing can be learned, images are rendered alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from jobs.errors import ModelError
from jobs.request import ImageRequest
from worker.diffusion.call_rules import Call, CallRules, UnknownCall, Unlearnable, learn
from worker.diffusion.interception import Hub
from worker.diffusion.painter import Painter, Painting
from worker.diffusion.stand_ins import Refused
from worker.diffusion.text_rules import text_rule_of
from worker.engine.renderer import Batching

log = logging.getLogger(__name__)

Computing = Callable[[], AbstractContextManager[object]]

_SLOTS = 4
"""Slots of the proof's forwards; a text rule's spare one is more."""
_PROMPTS = (
    "a",
    "a photograph of an old lighthouse at night, waves, high contrast",
    "two cats on a red sofa, one of them asleep, like in a children's book from the 1970s, watercolour",
)
_MOST_DIFFERENCE = 3 / 255
"""In float32: kernels round differently in another batch, and no step of a picture's 256 is far."""
_MOST_MEAN_DIFFERENCE = 4 / 255
"""In half precision, on average over the picture: single pixels differ more."""


@dataclass(frozen=True, slots=True)
class Learned:
    """How a pipeline's images share forwards."""

    batching: Batching
    rules: Mapping[str, CallRules]
    """Of each denoiser, by its name; empty where images are rendered alone."""
    reason: str = ""
    """Why it is not exact."""


def learn_and_prove(painter: Painter, sample: ImageRequest, computing: Computing) -> Learned:
    """How the painter's images share forwards. sample: a small request, guided where the pipeline guides.

    Raises ModelError when images that share forwards are other pictures than diffusers paints.
    """
    with torch.no_grad(), computing():
        try:
            rules = _rules(painter, sample)
        except (Unlearnable, Refused) as error:
            return Learned("alone", {}, str(error))
    return _proved(painter, _samples(sample), rules, computing)


def _rules(painter: Painter, sample: ImageRequest) -> dict[str, CallRules]:
    """The rules of each denoiser that is called."""
    pairs: dict[str, list[tuple[tuple[Call, Any], tuple[Call, Any]]]] = {}
    guided = replace(sample, num_inference_steps=2)
    unlearned: list[Exception] = []
    for request in (guided, replace(guided, guidance_scale=1.0, negative_prompt="")):
        try:
            one, two = (_calls(painter, request, images) for images in (1, 2))
        except Refused:
            raise
        except Exception as error:  # PRX, for one, cannot paint two guided images
            unlearned.append(error)
            continue
        for name in one:
            if len(one[name]) != len(two[name]):
                raise Unlearnable(
                    f"{name} is called {len(one[name])} times for one image, {len(two[name])} for two"
                )
            pairs.setdefault(name, []).extend(zip(one[name], two[name], strict=True))
    if not pairs:
        raise Unlearnable(
            f"its call for two images fails: {unlearned[0]}" if unlearned else "no denoiser is called"
        )
    return {name: learn(of_one) for name, of_one in pairs.items()}


def _calls(painter: Painter, request: ImageRequest, images: int) -> dict[str, list[tuple[Call, Any]]]:
    """Every denoiser's calls and outputs, by its name."""
    calls: dict[str, list[tuple[Call, Any]]] = {}

    def keep(name: str, module: Any, call: dict[str, Any]) -> Any:
        prepared = text_rule_of(module).prepare(call)
        output = module(**call)
        calls.setdefault(name, []).append((prepared, output))
        return output

    painter.calls(request, images, keep)
    return calls


def _samples(sample: ImageRequest) -> list[ImageRequest]:
    """Three images that differ in all that may differ within a forward."""
    first, second, third = _PROMPTS
    return [
        replace(sample, prompt=first, num_inference_steps=2, seed=1),
        replace(
            sample, prompt=second, num_inference_steps=4, seed=2, guidance_scale=sample.guidance_scale * 1.5
        ),
        replace(sample, prompt=third, num_inference_steps=3, seed=3, guidance_scale=1.0),
    ]


def _proved(
    painter: Painter, samples: Sequence[ImageRequest], rules: dict[str, CallRules], computing: Computing
) -> Learned:
    with torch.no_grad(), computing():
        plain = [painter.paint(request) for request in samples]
    try:
        alone = [paint_together(painter, rules, [request], computing)[0] for request in samples]
        together = paint_together(painter, rules, samples, computing)
        reversed_ = paint_together(painter, rules, samples[::-1], computing)[::-1]
    except (Unlearnable, UnknownCall, Refused) as error:
        return Learned("alone", {}, str(error))
    half = any(module.dtype != torch.float32 for module in painter.denoisers.values())
    for each in (alone, together):
        differences = [_difference(*pair, mean=half) for pair in zip(plain, each, strict=True)]
        most = _MOST_MEAN_DIFFERENCE if half else _MOST_DIFFERENCE
        if max(differences) > most:
            raise ModelError(
                f"{type(painter.pipeline).__name__}: its images come out different when they share forwards "
                f"(by {max(differences):.3f} of 1): this version cannot render it; please report the model"
            )
    same = all(
        np.array_equal(one.values, other.values)
        for each in (together, reversed_)
        for one, other in zip(alone, each, strict=True)
    )
    if not same:
        return Learned("fast", rules, "bytes depend on the images that share a forward")
    return Learned("exact", rules)


def paint_together(
    painter: Painter, rules: Mapping[str, CallRules], requests: Sequence[ImageRequest], computing: Computing
) -> list[Painting]:
    """The pictures of requests that enter together, in their order. Raises what one of them raised."""
    hub: Hub[int] = Hub(rules, _SLOTS, spare=painter.spare_slots, computing=computing)
    waiting = list(enumerate(requests))
    paintings: dict[int, Painting] = {}
    try:
        while True:
            while waiting and hub.free_slots:
                index, request = waiting.pop(0)
                hub.start(index, partial(painter.paint, request, None))
            for index, painting in hub.finished():
                if isinstance(painting, Exception):
                    raise painting
                paintings[index] = painting
            if not hub.running:
                return [paintings[index] for index in range(len(requests))]
            hub.forward()
    finally:
        hub.close()


def _difference(one: Painting, other: Painting, *, mean: bool) -> float:
    by = np.abs(one.values - other.values)
    return float(by.mean() if mean else by.max())
