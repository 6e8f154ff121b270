"""How a pipeline's images share forwards: learned from a few calls when it is loaded, then proved.

Learning compares the denoisers' calls for one image with those for two (`call_rules`). The proof paints three
images as diffusers does, alone among spare slots, and together in two orders. Another picture refuses the
model; other bytes refuse `mode: exact`; where nothing can be learned, images are rendered alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from jobs.arguments import arguments_of, arguments_text
from jobs.errors import ModelError, RenderError
from jobs.pipelines.pipeline_class import Folder, PipelineClass
from jobs.pipelines.pipeline_task import pictures_of
from jobs.request import ImageRequest
from worker.diffusion.call_rules import Call, CallRules, learn
from worker.diffusion.contents import Digests
from worker.diffusion.joined_calls import keyed
from worker.diffusion.painter import Painter, Painting
from worker.diffusion.sharing_errors import CannotShare, Refused, Unlearnable
from worker.diffusion.text_rules import text_rule_of
from worker.engine.renderer import Batching, BrokenDevice, OutOfMemory, first_line
from worker.error_frames import drop_frames
from worker.renderers.device import device_errors
from worker.renderers.noise_pictures import NOISE_PICTURES, noise_picture
from worker.renderers.paint_together import Computing, paint_together

_SIDES = (64, 16, 256)
"""Pixels of the pictures from which is learned, the first that can be painted: rules follow from no size."""
_BESIDE = ("controlnet", "ip_adapter", "ip_adapter_scale")
"""The settings that say what works beside a pipeline."""
_PROMPTS = (
    "a",
    "an old lighthouse at night, waves",
    "two cats on a red sofa, one of them asleep, watercolour",
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
    slots: tuple[int, int] = (1, 1)
    """Slots of a call, at most: of an unguided image, of a guided one; what else adds some is off."""
    reason: str = ""
    """Why it is not exact."""


def sample_of(
    painter: Painter, pictures: Collection[str] = (), like: ImageRequest | None = None
) -> ImageRequest:
    """A small request that the painter's pipeline paints. Raises what it raises, when it paints none.

    pictures: the settings that it has pictures for. like: a request with these, whose ControlNets and
    IP-Adapter it has.
    """
    errors: list[Exception] = []
    for side in _SIDES:
        sample = sample_near(painter, side, pictures, like)
        try:
            with device_errors(), torch.no_grad():
                painter.paint(sample, NOISE_PICTURES)
            return sample
        # Some models know only positions of pictures as large as theirs, or no smaller ones.
        except (RuntimeError, IndexError, ValueError, RenderError) as error:
            drop_frames(error)
            errors.append(error)
    try:
        raise errors[0]
    finally:
        errors.clear()  # or this call would be held by an error that it holds


def sample_near(
    painter: Painter, side: int, pictures: Collection[str] = (), like: ImageRequest | None = None
) -> ImageRequest:
    """A request of about that height and width, of which it is not known whether it can be painted.

    Its pictures are those of `NOISE_PICTURES`.
    """
    kind, scale = painter.kind, getattr(painter.pipeline, "vae_scale_factor", None)
    # Or the size would be rounded to one of those that the model was trained on, which are large.
    arguments = {name: False for name in ("use_resolution_binning",) if name in kind.arguments}
    if "sizes" in kind.size and not arguments:
        height, width = min(kind.size["sizes"], key=math.prod)
    else:
        step = kind.multiple(Folder(scale=scale if isinstance(scale, int) else None))
        height = width = step * math.ceil(side / step)
    if kind.size.get("area") is True:  # it paints no others
        usual = int(kind.size["scale"]["usual"]) if scale is None else scale
        height = width = int(kind.size["default"]["latents"]) * usual
    named: dict[str, Any] = {name: noise_picture(name, 0) for name in pictures}
    named |= {} if like is None else {name: getattr(like, name) for name in _BESIDE}
    request = ImageRequest(
        prompt="a",
        height=height,
        width=width,
        num_inference_steps=2,
        guidance_scale=kind.guidance_scale,
        scheduler="default" if "default" in kind.schedulers else kind.schedulers[0],
        seed=0,
        model=kind.name,
        revision="",
        arguments=arguments_text(arguments),
        strength=1.0 if "image" in pictures and kind.strength is not None else None,
        **named,
    )
    return of_size(kind, request, height, width)


def of_size(kind: PipelineClass, request: ImageRequest, height: int, width: int) -> ImageRequest:
    """The request with another size, and the area of it where the class is told that as well."""
    area = kind.size.get("area")
    if not isinstance(area, str):
        return replace(request, height=height, width=width)
    arguments = arguments_text({**arguments_of(request.arguments), area: height * width})
    return replace(request, height=height, width=width, arguments=arguments)


def learn_and_prove(
    painter: Painter,
    sample: ImageRequest,
    computing: Computing = nullcontext,
    uncompiled: Computing = nullcontext,
    moved: Callable[[], None] = lambda: None,
) -> Learned:
    """How the painter's images share forwards. sample: a small request that the pipeline paints.

    computing: the context of all work. uncompiled: that of calls of denoisers which no images share: what is
    proved are compiled forwards, against pictures of uncompiled ones. moved: called after each forward, or
    after each picture that is painted by itself.

    Raises ModelError when images that share forwards are other pictures than diffusers paints.
    """
    with torch.no_grad(), computing(), uncompiled():
        try:
            learned = _learned(painter, sample, moved)
        except CannotShare as error:
            return Learned("alone", {}, _slots_alone(painter, sample, moved), error.what)
        plain = _Plain.of(painter, _proof(painter.kind, sample), moved)
    together = partial(paint_together, painter, learned.rules, computing=computing, moved=moved)
    return _proved(painter.kind.name, plain, learned, together)


# Learning.


def _learned(painter: Painter, sample: ImageRequest, moved: Callable[[], None]) -> Learned:
    """The rules of each denoiser that is called, to be proved."""
    pairs: dict[str, list[tuple[tuple[Call, Any], tuple[Call, Any]]]] = {}
    unguided, guided = (
        _calls(painter, request, 1, moved)
        for request in (_off(painter.kind, sample), _on(painter.kind, sample))
    )
    failed = ""
    for request, one in ((_off(painter.kind, sample), unguided), (_on(painter.kind, sample), guided)):
        try:
            with device_errors():
                two = _calls(painter, request, 2, moved)
        # A device that failed once says nothing of the pipeline, and what is learned is kept for good.
        except (Refused, OutOfMemory, BrokenDevice):
            raise
        except Exception as error:  # PRX, for one, cannot paint two guided images
            failed = f"its call for two images fails: {first_line(error)}"
            continue
        for name in one:
            if len(one[name]) != len(two[name]):
                counts = f"{len(one[name])} times for one image, {len(two[name])} for two"
                raise Unlearnable(f"{name} is called {counts}")
            pairs.setdefault(name, []).extend(zip(one[name], two[name], strict=True))
    if not pairs:
        raise Unlearnable(failed if failed else "it calls no denoiser")
    rules = {name: learn(of_one) for name, of_one in pairs.items()}
    return Learned("alone", rules, slots=(_most_slots(rules, unguided), _most_slots(rules, guided)))


def _calls(
    painter: Painter, request: ImageRequest, images: int, moved: Callable[[], None]
) -> dict[str, list[tuple[Call, Any]]]:
    """Every denoiser's calls and outputs, by its name."""
    calls: dict[str, list[tuple[Call, Any]]] = {}

    def keep(name: str, module: Any, call: dict[str, Any]) -> Any:
        output = module(**call)
        moved()
        calls.setdefault(name, []).append((text_rule_of(module).prepare(call), output))
        return output

    painter.calls(request, images, keep, NOISE_PICTURES)
    return calls


def _most_slots(rules: Mapping[str, CallRules], calls: Mapping[str, Sequence[tuple[Call, Any]]]) -> int:
    return max(
        keyed(rules[name], call, Digests()).slots
        for name, of_one in calls.items()
        for call, _output in of_one
    )


def _slots_alone(painter: Painter, sample: ImageRequest, moved: Callable[[], None]) -> tuple[int, int]:
    """Slots of a call, at most, of which nothing was learned: the samples that the denoisers put out."""
    counts: list[int] = []

    def count(_module: Any, _args: Any, output: Any) -> None:
        counts.append(len(output if isinstance(output, torch.Tensor) else output[0]))
        moved()

    def most(request: ImageRequest) -> int:
        counts.clear()
        arguments = arguments_of(request.arguments)
        more = {stage.more[0]: stage.more[1] for stage in painter.kind.stages if stage.more is not None}
        with device_errors():
            painter.paint(replace(request, arguments=arguments_text(arguments | more)), NOISE_PICTURES)
        return max(counts, default=1)

    hooks = [module.register_forward_hook(count) for module in painter.denoisers.values()]
    try:
        return most(_off(painter.kind, sample)), most(_on(painter.kind, sample))
    finally:
        for hook in hooks:
            hook.remove()


def _off(kind: PipelineClass, sample: ImageRequest) -> ImageRequest:
    """The sample with all guidance off, in two steps."""
    return switched(kind, replace(sample, num_inference_steps=2), 0.0)


def _on(kind: PipelineClass, sample: ImageRequest) -> ImageRequest:
    """The sample with all guidance on, in two steps."""
    negative = "blurry" if kind.negative_prompt else ""
    return switched(kind, replace(sample, num_inference_steps=2, negative_prompt=negative), 3.0)


def switched(kind: PipelineClass, request: ImageRequest, more: float) -> ImageRequest:
    """The request with every switch of guidance so much above the value above which it is on."""
    arguments = arguments_of(request.arguments)
    scale = request.guidance_scale
    for stage in kind.stages:
        if stage.switch is not None:
            name, above = stage.switch
            if name == kind.guidance:
                scale = above + more
            else:
                arguments[name] = above + more
    return replace(request, guidance_scale=scale, arguments=arguments_text(arguments))


# The proof.


def _proof(kind: PipelineClass, sample: ImageRequest) -> list[ImageRequest]:
    """Three images that differ in all that may differ within a forward."""
    first, second, third = _PROMPTS
    return [
        _pictured(replace(_on(kind, sample), prompt=first, num_inference_steps=2, seed=1), 1.0),
        _pictured(
            replace(_on(kind, sample), prompt=second, negative_prompt="", num_inference_steps=4, seed=2), 0.5
        ),
        _pictured(replace(_off(kind, sample), prompt=third, num_inference_steps=3, seed=3), 0.7),
    ]


def _pictured(request: ImageRequest, strength: float) -> ImageRequest:
    """The request with pictures of its own, and this strength if it has one."""
    own: dict[str, Any] = {name: noise_picture(name, request.seed) for name in pictures_of(request)}
    return replace(request, strength=None if request.strength is None else strength, **own)


@dataclass(frozen=True, slots=True, eq=False)
class _Plain:
    """The proof's images as diffusers paints them."""

    requests: Sequence[ImageRequest]
    paintings: Sequence[Painting]
    half: bool
    """Whether they were computed in half precision."""

    @classmethod
    def of(cls, painter: Painter, requests: Sequence[ImageRequest], moved: Callable[[], None]) -> _Plain:
        """Paints them in the context of all work."""
        modules = painter.denoisers.values()
        half = any(module.dtype != torch.float32 for module in modules)
        half |= any(torch.is_autocast_enabled(module.device.type) for module in modules)
        paintings = []
        for request in requests:
            paintings.append(painter.paint(request, NOISE_PICTURES))
            moved()
        return cls(requests, paintings, half)


def _proved(
    name: str,
    plain: _Plain,
    learned: Learned,
    together: Callable[[Sequence[ImageRequest]], tuple[list[Painting], int]],
) -> Learned:
    """What was learned, with how the images of the proof came out `together`. name: the class's."""
    requests, half = plain.requests, plain.half
    try:
        alone = [together([request])[0][0] for request in requests]
        mixed, _forwards = together(requests)
        turned = together(requests[::-1])[0][::-1]
    except CannotShare as error:
        return replace(learned, rules={}, reason=error.what)
    for ours in (alone, mixed):
        difference = max(_difference(*pair, mean=half) for pair in zip(plain.paintings, ours, strict=True))
        if difference > (_MOST_MEAN_DIFFERENCE if half else _MOST_DIFFERENCE):
            raise ModelError(
                f"{name}: images that share forwards come out different (by {difference:.3f} "
                "of 1) from diffusers' own: this version cannot render the model; please report it"
            )
    same = all(
        np.array_equal(one.values, other.values)
        for ours in (mixed, turned)
        for one, other in zip(alone, ours, strict=True)
    )
    if same:
        return replace(learned, batching="exact")
    return replace(learned, batching="fast", reason="bytes depend on the images that share a forward")


def _difference(one: Painting, other: Painting, *, mean: bool) -> float:
    by = np.abs(one.values - other.values)
    return float(by.mean() if mean else by.max())
