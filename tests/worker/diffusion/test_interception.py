"""Images of a pipeline share forwards, and each is the picture that the pipeline paints of it alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import RenderError
from jobs.inputs.inputs import NO_INPUTS
from jobs.request import ImageRequest
from tests.held_inputs import LATENTS, holding
from tests.tiny.families import FAMILIES
from worker.diffusion.call_rules import CallRules, Shared
from worker.diffusion.interception import Hub, painted
from worker.diffusion.painter import Painter, Painting
from worker.diffusion.pipeline_copy import fork
from worker.diffusion.sharing_errors import Refused
from worker.diffusion.stand_ins import CallDenoiser, Denoiser
from worker.renderers.learning import Learned, learn_and_prove

CAT = ImageRequest(
    prompt="a cat", height=64, width=64, num_inference_steps=3, guidance_scale=4.0, scheduler="default",
    seed=1, model="tiny", revision="1",
)  # fmt: skip
MIX = [
    CAT,
    replace(CAT, prompt="two dogs on the moon, oil painting", num_inference_steps=5, seed=2),
    replace(CAT, prompt="x", guidance_scale=1.0, seed=3),
    replace(CAT, prompt="a red house", negative_prompt="blurry", num_inference_steps=2, seed=4),
]


@lru_cache
def painter() -> Painter:
    return Painter(FAMILIES["StableDiffusionXLPipeline"].build())


@lru_cache
def learned() -> Learned:
    return learn_and_prove(painter(), CAT, nullcontext)


def new_hub(slots: int = 8, **options: Any) -> Hub[ImageRequest]:
    return Hub(learned().rules, slots, **options)


def finish(hub: Hub[ImageRequest], requests: Sequence[ImageRequest]) -> dict[ImageRequest, Any]:
    """What came of requests that all enter at once."""
    for request in requests:
        hub.start(request, partial(painter().paint, request, NO_INPUTS))
    results = dict(hub.finished())
    while hub.running:
        hub.forward()
        results |= dict(hub.finished())
    return results


def test_each_image_is_as_the_pipeline_paints_it_in_fewer_forwards() -> None:
    hub = new_hub()
    results = finish(hub, MIX)
    with torch.no_grad():
        for request in MIX:
            plain = painter().paint(request)
            assert np.abs(results[request].values - plain.values).max() <= 1e-5
    assert hub.forwards == 5, "as many as the longest has"
    assert hub.slots_used == 2 * 3 + 2 * 5 + 3 + 2 * 2


def test_bytes_follow_from_the_request_in_any_order_and_alone() -> None:
    together, turned = finish(new_hub(), MIX), finish(new_hub(), MIX[::-1])
    for request in MIX:
        [alone] = finish(new_hub(), [request]).values()
        assert np.array_equal(alone.values, together[request].values)
        assert np.array_equal(alone.values, turned[request].values)


def test_every_forward_has_all_slots_unless_it_is_not_padded() -> None:
    seen: list[int] = []

    def look(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(len(kwargs["sample"]))

    hubs = new_hub(), new_hub(padded=False)
    hook = painter().denoisers["unet"].register_forward_pre_hook(look, with_kwargs=True)
    for hub in hubs:
        finish(hub, [CAT])
    hook.remove()
    assert seen == [8] * 3 + [2] * 3


def test_more_images_than_slots_take_turns() -> None:
    hub = new_hub(slots=4)
    assert hub.free_slots == 4
    results = finish(hub, MIX)
    assert all(isinstance(result, Painting) for result in results.values())
    assert results.keys() == set(MIX)


def test_images_of_another_size_wait_for_a_forward_of_their_own_and_never_for_ever() -> None:
    hub = new_hub(slots=4)
    small = replace(CAT, height=32, width=32, seed=9)
    hub.start(small, partial(painter().paint, small, NO_INPUTS))
    waited = 0
    while small not in dict(hub.finished()):
        # An endless stream of the other size, which always has more slots.
        while hub.running < 3:
            other = replace(CAT, seed=100 + hub.forwards + hub.running)
            hub.start(other, partial(painter().paint, other, NO_INPUTS))
        hub.forward()
        waited += 1
        assert waited < 60
    hub.close()


def test_an_image_that_raises_ends_alone() -> None:
    wrong = replace(CAT, num_inference_steps=0, seed=7)
    results = finish(new_hub(), [wrong, *MIX])
    assert isinstance(results[wrong], Exception)
    assert all(isinstance(results[request], Painting) for request in MIX)


def test_images_of_other_rules_share_forwards_where_the_rules_are_the_same_ones() -> None:
    def forwards(other: dict[str, CallRules]) -> int:
        hub = new_hub()
        for request, rules in ((CAT, None), (replace(CAT, seed=9), other)):
            hub.start(request, partial(painter().paint, request, NO_INPUTS), rules)
        while hub.running:
            hub.forward()
        assert all(not isinstance(result, Exception) for _request, result in hub.finished())
        return hub.forwards

    own = learned().rules["unet"]
    assert forwards({"unet": CallRules({**own.inputs}, {**own.outputs})}) == 3
    one_more = {**own.inputs, ("never", "given"): Shared()}
    assert forwards({"unet": CallRules(one_more, own.outputs)}) == 6


def test_images_stay_parked_when_a_forward_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = new_hub()
    hub.start(CAT, partial(painter().paint, CAT, NO_INPUTS))

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(type(painter().denoisers["unet"]), "forward", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            hub.forward()
    assert hub.running == 1
    while hub.running:
        hub.forward()
    [(_request, painting)] = hub.finished()
    [other] = finish(new_hub(), [CAT]).values()
    assert np.array_equal(painting.values, other.values)


def test_closing_ends_what_is_parked_and_delivers_nothing() -> None:
    hub = new_hub()
    hub.start(CAT, partial(painter().paint, CAT, NO_INPUTS))
    hub.close()
    assert (hub.running, hub.finished()) == (0, [])


def test_a_non_finite_image_leaves_its_neighbours_bytes_alone() -> None:
    broken = replace(CAT, seed=5)
    side = 64 // painter().pipeline.vae_scale_factor
    latents = np.full((4, side, side), np.nan, dtype="float32")
    hub = new_hub()
    hub.start(broken, partial(painter().paint, replace(broken, init_latents=LATENTS), holding(latents)))
    for request in MIX:
        hub.start(request, partial(painter().paint, request, NO_INPUTS))
    results: dict[ImageRequest, Any] = {}
    while hub.running:
        hub.forward()
        results |= dict(hub.finished())
    assert not results[broken].finite
    calm = finish(new_hub(), MIX)
    for request in MIX:
        assert results[request].finite
        assert np.array_equal(results[request].values, calm[request].values)


class Watched:
    """Paints a request, and knows which tensors of its calls are held; may raise in its third call."""

    def __init__(self, request: ImageRequest, *, fails: Exception | None = None) -> None:
        self.request, self.fails = request, fails
        self.tensors: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, call: CallDenoiser) -> Painting:
        side = 64 // painter().pipeline.vae_scale_factor
        latents = np.ones((4, side, side), "float32")
        request = replace(self.request, init_latents=LATENTS)
        return painter().paint(request, holding(latents), call=partial(self.watch, call))

    def watch(self, call: CallDenoiser, name: str, module: Any, arguments: dict[str, Any]) -> Any:
        values = [*arguments.values(), *arguments["added_cond_kwargs"].values()]
        self.tensors += [weakref.ref(value) for value in values if isinstance(value, torch.Tensor)]
        if self.fails is not None and len(self.tensors) > 10:
            raise self.fails
        return call(name, module, arguments)

    @property
    def held(self) -> int:
        return sum(one() is not None for one in self.tensors)


@pytest.fixture
def _uncollected() -> Iterator[None]:
    painter(), learned()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
@pytest.mark.parametrize(
    "fails",
    [None, ValueError("of the image"), RenderError("its own"), torch.OutOfMemoryError("no room"), "text"],
    ids=lambda one: type(one).__name__,
)
def test_an_image_that_ended_holds_no_memory_however_it_ended(fails: Any) -> None:
    """What came of it is kept here; the garbage is not collected, as it is not while a GPU runs full."""
    hub = new_hub()
    request = replace(CAT, scheduler="LMS", num_inference_steps=4)
    error = fails if isinstance(fails, Exception) else None
    image = Watched(replace(request, height=65) if fails == "text" else request, fails=error)
    hub.start(request, image)
    while hub.running:
        hub.forward()
    [(_request, result)] = hub.finished()
    assert isinstance(result, Painting if fails is None else Exception)
    assert (len(image.tensors) > 10) == (fails != "text")
    assert image.held == 0
    if isinstance(result, Exception):
        freed = weakref.ref(hub)
        del hub
        assert freed() is None, "nor does what came of it hold the other images"
        with pytest.raises(type(result)):
            painted(result)


@pytest.mark.usefixtures("_uncollected")
def test_an_image_that_is_closed_holds_no_memory() -> None:
    hub, image = new_hub(), Watched(CAT)
    hub.start(CAT, image)
    hub.forward()
    assert image.held
    hub.close()
    assert image.held == 0


def test_grad_mode_is_what_it_was_after_images_came_and_went() -> None:
    assert torch.is_grad_enabled()
    finish(new_hub(), MIX)
    hub = new_hub()
    hub.start(CAT, partial(painter().paint, CAT, NO_INPUTS))
    hub.close()
    assert torch.is_grad_enabled()


def test_a_pipeline_that_changes_what_images_share_is_refused() -> None:
    own = fork(
        painter().pipeline,
        lambda name, part: Denoiser(name, part, lambda *_: None) if name == "unet" else None,
    )
    with pytest.raises(Refused, match="attention of unet"):
        own.unet.set_attn_processor(None)
    with pytest.raises(Refused, match=r"sets unet\.training"):
        own.unet.training = True
    assert isinstance(own.unet, type(painter().denoisers["unet"]))
