"""The engine with the real renderer: whatever goes wrong, each picture keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.errors import RenderError
from tests.waiting import LONGEST
from tests.worker.engine.desk import Desk, Start, Wait
from worker.engine.engine import Engine
from worker.engine.renderer import (
    Bucket,
    Pipeline,
)
from worker.engine.request_queue import Order
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipelines import load_model

SHAPES = Pipeline("shapes-random", "shapes-random-1", "fp32")
REAL = Bucket(SHAPES, 16, 16, slots=8)


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(*("shapes-random", "shapes-random-1"), "fp32", "cpu")
    torch.set_num_threads(before)


def real_orders(desk: Desk, bucket: Bucket = REAL) -> list[Order]:
    """Ten images of many settings, seeds 0 .. 9."""
    names = ("LMS", "Euler a", "DDIM", "DPM++ 2M")
    return [
        desk.order(
            seed,
            f"a star {seed}",
            bucket=bucket,
            steps=2 + seed % 4,
            guidance=(7.5, 1.0, 3.0)[seed % 3],
            scheduler=names[seed % 4],
        )
        for seed in range(10)
    ]


def pixels_of(desk: Desk, seeds: Sequence[int]) -> dict[int, bytes]:
    return {seed: desk.finished(seed).picture.pixels.tobytes() for seed in seeds}


Undisturbed = Callable[[int], dict[int, bytes]]


@pytest.fixture(scope="module")
def undisturbed(model: ImageDiffusionModel, wait_until: Wait) -> Undisturbed:
    """The ten pictures as they are without misfortune, in so many slots."""
    known: dict[int, dict[int, bytes]] = {}

    def render(slots: int) -> dict[int, bytes]:
        if slots not in known:
            desk, engine = Desk(), Engine(lambda _pipeline: DiffusionRenderer(model))
            engine.submit(real_orders(desk, replace(REAL, slots=slots)))
            done = engine.ask(SHAPES, lambda _renderer: None)
            engine.start()
            done.result(LONGEST)
            wait_until(lambda desk=desk: len(desk.outcomes) == 10, "all are delivered")
            engine.close()
            known[slots] = pixels_of(desk, range(10))
        return known[slots]

    return render


def test_memory_that_runs_out_in_a_forward_costs_slots_and_no_picture(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    forwards: list[int] = []

    def run_out(_module: object, args: tuple[torch.Tensor]) -> None:
        forwards.append(len(args[0]))
        if len(args[0]) == 8 and len(forwards) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    by_slots = {slots: undisturbed(slots) for slots in (8, 4)}
    hook = model.unet.register_forward_pre_hook(run_out)
    engine = start(DiffusionRenderer(model), real_orders(desk))
    wait_until(lambda: len(desk.outcomes) == 10, "all are delivered")
    hook.remove()
    assert sorted(desk.deliveries) == list(range(10))
    slots = {seed: desk.finished(seed).rendered_by.rows for seed in range(10)}
    assert set(slots.values()) == {8, 4}, "some were finished before"
    assert pixels_of(desk, range(10)) == {seed: by_slots[slots[seed]][seed] for seed in range(10)}
    assert engine.fitting(REAL).slots == 4


def test_bad_images_in_a_real_forward_fail_and_their_neighbours_keep_their_bytes(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    """One is not finite; one makes the UNet raise, so everything in flight with it is rendered again."""
    expected = undisturbed(8)

    def raise_at(_module: object, args: tuple[torch.Tensor]) -> None:
        if (args[0] > 1e6).any():
            raise RuntimeError("index out of range")

    def bad(seed: int, value: float) -> Order:
        start_at = np.full((4, 4, 4), value, np.float32)
        return desk.order(seed, bucket=REAL, steps=3, guidance=2.0, init_latents=start_at)

    orders = real_orders(desk)
    orders[2:2] = [bad(20, np.nan)]
    orders[6:6] = [bad(21, 1e8)]
    hook = model.unet.register_forward_pre_hook(raise_at)
    start(DiffusionRenderer(model), orders)
    wait_until(lambda: len(desk.outcomes) == 12, "all are delivered")
    hook.remove()
    assert sorted(desk.deliveries) == [*range(10), 20, 21]
    for seed, message in {
        20: "the model gave non-finite values, alone in fp32 too",
        21: "raised RuntimeError: index out of range, alone in fp32 too",
    }.items():
        failure = desk.outcomes[seed]
        assert isinstance(failure, RenderError)
        assert str(failure) == message
    assert pixels_of(desk, range(10)) == expected


def test_a_number_of_steps_that_a_scheduler_cannot_take_fails_its_image_alone(
    desk: Desk, start: Start, wait_until: Wait, model: ImageDiffusionModel, undisturbed: Undisturbed
) -> None:
    orders = [*real_orders(desk), desk.order(20, bucket=REAL, steps=1500, scheduler="DDIM")]
    start(DiffusionRenderer(model), orders)
    wait_until(lambda: len(desk.outcomes) == 11, "all are delivered")
    assert isinstance(desk.outcomes[20], RenderError)
    assert "num_inference_steps = 1500: DDIM cannot run so many" in str(desk.outcomes[20])
    assert pixels_of(desk, range(10)) == undisturbed(8)
