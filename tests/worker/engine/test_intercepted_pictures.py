"""The engine with a pipeline whose images share forwards: whatever goes wrong, each keeps its bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import RenderError
from tests.tiny.families import FAMILIES
from tests.waiting import LONGEST
from tests.worker.engine.desk import Desk, Start, Wait
from worker.diffusion.precision import resolve_precision
from worker.engine.engine import Engine
from worker.engine.renderer import Bucket, Pipeline
from worker.engine.request_queue import Order
from worker.renderers.pipeline_renderer import PipelineRenderer

CPU = torch.device("cpu")
FLUX = Pipeline("tiny-flux", "1", "fp32")
BUCKET = Bucket(FLUX, 32, 32, slots=4)
GUIDED = '{"max_sequence_length":32,"true_cfg_scale":3}'
IMAGES = 7

Undisturbed = Callable[[int], dict[int, bytes]]


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineRenderer]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield PipelineRenderer(
            FAMILIES["FluxPipeline"].build(),
            precision=resolve_precision("fp32", CPU),
            device=CPU,
            model=FLUX.model,
            revision=FLUX.revision,
        )
    torch.set_num_threads(before)


def order(desk: Desk, seed: int, **settings: Any) -> Order:
    own = {"scheduler": "default", "arguments": '{"max_sequence_length":32}', "bucket": BUCKET} | settings
    return desk.order(seed, f"a star {seed}", **own)


def many(desk: Desk, bucket: Bucket = BUCKET) -> list[Order]:
    """Images of many settings, seeds 0 .. 6."""
    return [
        order(
            desk,
            seed,
            bucket=bucket,
            steps=2 + seed % 3,
            guidance=(3.5, 1.0)[seed % 2],
            scheduler=("default", "Flow UniPC")[seed % 2],
            **({"arguments": GUIDED, "negative_prompt": "blurry"} if seed % 3 == 0 else {}),
        )
        for seed in range(IMAGES)
    ]


def pixels_of(desk: Desk, seeds: Sequence[int] = range(IMAGES)) -> dict[int, bytes]:
    return {seed: desk.finished(seed).picture.pixels.tobytes() for seed in seeds}


@pytest.fixture(scope="module")
def undisturbed(renderer: PipelineRenderer, wait_until: Wait) -> Undisturbed:
    """The pictures as they are without misfortune, in so many slots."""
    known: dict[int, dict[int, bytes]] = {}

    def render(slots: int) -> dict[int, bytes]:
        if slots not in known:
            desk, engine = Desk(), Engine(lambda _pipeline: renderer)
            engine.submit(many(desk, replace(BUCKET, slots=slots)))
            done = engine.ask(FLUX, lambda _renderer: None)
            engine.start()
            done.result(LONGEST)
            wait_until(lambda: len(desk.outcomes) == IMAGES, "all are delivered")
            engine.close()
            known[slots] = pixels_of(desk)
            assert len(set(known[slots].values())) == IMAGES
        return known[slots]

    return render


def test_memory_that_runs_out_in_a_shared_forward_costs_slots_and_no_picture(
    desk: Desk, start: Start, wait_until: Wait, renderer: PipelineRenderer, undisturbed: Undisturbed
) -> None:
    forwards: list[int] = []

    def run_out(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        forwards.append(len(kwargs["hidden_states"]))
        if forwards[-1] == 4 and len(forwards) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    by_slots = {slots: undisturbed(slots) for slots in (4, 2)}
    hook = renderer.pipeline.transformer.register_forward_pre_hook(run_out, with_kwargs=True)
    engine = start(renderer, sorted(many(desk), key=lambda one: one.request.num_inference_steps))
    wait_until(lambda: len(desk.outcomes) == IMAGES, "all are delivered")
    hook.remove()
    assert sorted(desk.deliveries) == list(range(IMAGES))
    slots = {seed: desk.finished(seed).rendered_by.rows for seed in range(IMAGES)}
    assert 2 in slots.values()
    assert pixels_of(desk) == {seed: by_slots[slots[seed]][seed] for seed in range(IMAGES)}
    assert set(forwards[4:]) == {2}
    assert engine.fitting(BUCKET).slots == 2


def test_bad_images_in_a_shared_forward_fail_and_their_neighbours_keep_their_bytes(
    desk: Desk, start: Start, wait_until: Wait, renderer: PipelineRenderer, undisturbed: Undisturbed
) -> None:
    """One is not finite; one makes the transformer raise, so everything in flight is rendered again; one
    is refused in its own call, before any forward.
    """
    expected = undisturbed(4)

    failed: list[weakref.ref[torch.Tensor]] = []
    held: list[object] = []

    def raise_at(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        held.extend(one() for one in failed)
        if (kwargs["hidden_states"] > 1e6).any():
            failed.append(weakref.ref(kwargs["hidden_states"]))
            raise RuntimeError("index out of range")

    def bad(seed: int, value: float) -> Order:
        side = 32 // renderer.pipeline.vae_scale_factor
        return order(desk, seed, steps=3, init_latents=np.full((16, side, side), value, np.float32))

    orders = many(desk)
    orders[2:2] = [bad(20, np.nan)]
    orders[5:5] = [bad(21, 1e8)]
    orders[1:1] = [order(desk, 22, steps=4, arguments='{"max_sequence_length":1000}')]
    hook = renderer.pipeline.transformer.register_forward_pre_hook(raise_at, with_kwargs=True)
    start(renderer, orders)
    wait_until(lambda: len(desk.outcomes) == IMAGES + 3, "all are delivered")
    hook.remove()
    assert sorted(desk.deliveries) == [*range(IMAGES), 20, 21, 22]
    for seed, message in {
        20: "the model gave non-finite values, alone in fp32 too",
        21: "raised RuntimeError: index out of range, alone in fp32 too",
        22: "max_sequence_length = 1000: must be a whole number of at least 1 and at most 512",
    }.items():
        failure = desk.outcomes[seed]
        assert isinstance(failure, RenderError)
        assert message in str(failure)
    assert len(failed) > 1
    assert set(held) == {None}, "no forward that failed is held while its images are rendered again"
    assert pixels_of(desk) == expected
    assert {desk.finished(seed).rendered_by.rows for seed in range(IMAGES)} == {4}


def test_memory_that_runs_out_in_an_image_s_own_work_is_no_failure_of_the_image(
    desk: Desk, start: Start, wait_until: Wait, renderer: PipelineRenderer, undisturbed: Undisturbed
) -> None:
    """The decoder of one image finds no memory beside the others; in fewer slots there is some."""
    decoded: list[int] = []

    def run_out(_module: object, _args: object) -> None:
        decoded.append(1)
        if len(decoded) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    by_slots = {slots: undisturbed(slots) for slots in (4, 2)}
    hook = renderer.pipeline.vae.decoder.register_forward_pre_hook(run_out)
    start(renderer, many(desk))
    wait_until(lambda: len(desk.outcomes) == IMAGES, "all are delivered")
    hook.remove()
    slots = {seed: desk.finished(seed).rendered_by.rows for seed in range(IMAGES)}
    assert 2 in slots.values()
    assert pixels_of(desk) == {seed: by_slots[slots[seed]][seed] for seed in range(IMAGES)}
