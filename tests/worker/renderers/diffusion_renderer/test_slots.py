"""How many slots forwards have, who fills them, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.schedulers import SCHEDULERS, forwards
from tests.worker.renderers.diffusion_renderer.wanted import BUCKET, MIX, SMALL, paint, slots_seen, wanted
from worker.engine import slot_count
from worker.engine.renderer import OutOfMemory
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.instant import InstantRenderer


def test_every_part_runs_at_one_shape_however_few_the_requests(
    renderer: DiffusionRenderer, model: ImageDiffusionModel
) -> None:
    for count in (1, 3, 5):
        images = [wanted(n, prompt=f"never seen before {count} {n}") for n in range(count)]
        seen = slots_seen(model, lambda images=images: paint(renderer, images, bucket=SMALL))
        assert {part: set(slots) for part, slots in seen.items()} == {"text": {8}, "unet": {8}, "vae": {2}}


def test_texts_are_encoded_a_batch_ahead(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    images = [wanted(n, prompt=f"counted {n}", negative_prompt="not counted") for n in range(11)]
    seen = slots_seen(model, lambda: paint(renderer, images, bucket=SMALL))
    # Eleven prompts and a negative one they share: four enter at once, the others are seen coming.
    assert seen["text"] == [8, 8]
    # Three forwards for every four images, in 8 slots; two pictures decoded at a time.
    assert (seen["unet"], seen["vae"]) == ([8] * 9, [2] * 6)


def test_in_fast_mode_free_slots_are_left_out(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    fast = replace(BUCKET, mode="fast")
    found: dict[int, bytes] = {}
    seen = slots_seen(model, lambda: found.update(paint(renderer, [MIX[0], MIX[4]], bucket=fast)))
    assert seen["unet"] == [3, 3, 3, 1, 1, 1]
    assert seen["vae"] == [2]
    for seed, pixels in found.items():
        ours, exact = (np.frombuffer(one, np.uint8).astype(int) for one in (pixels, alone[seed]))
        assert np.abs(ours - exact).max() <= 1


def test_forwards_are_those_the_image_stays(renderer: DiffusionRenderer) -> None:
    for scheduler, expected in (("LMS", 3), ("Heun", 5), ("PNDM", 4)):
        assert renderer.forwards(wanted(0, scheduler=scheduler).request) == expected


@pytest.mark.parametrize("scheduler", [scheduler.name for scheduler in SCHEDULERS])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_image_takes_the_slot_evaluations_that_plan_counts(
    renderer: DiffusionRenderer, scheduler: str, steps: int
) -> None:
    """Or the rates that workers measure would mean something else than what `plan` divides by them."""
    for guidance_scale in (1.0, 7.5):
        settings = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
        request = wanted(0, scheduler=scheduler, **settings).request
        for one in (renderer, InstantRenderer(0.0)):
            work = one.forwards(request) * one.slots(request)
            assert work == forwards(scheduler, steps) * (2 if request.guided else 1)


def test_slots_are_measured_on_the_unet_and_once(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_count, "MOST", 4)
    measured: list[int] = []
    seen = slots_seen(model, lambda: measured.append(renderer.measure_slots(32, 32)))
    assert measured[0] in (2, 4)
    assert set(seen["unet"]) == {2, 4}
    assert all(seen["unet"].count(slots) >= 2 for slots in (2, 4)), "the first may compile"
    assert slots_seen(model, lambda: renderer.measure_slots(32, 32))["unet"] == []


def out_of_memory_from(slots: int) -> Callable[[object, tuple[torch.Tensor]], None]:
    def hook(module: object, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) >= slots:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    return hook


def test_memory_that_runs_out_while_slots_are_measured_bounds_them(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_count, "GAIN", -100.0)  # more slots are never too dear
    hook = model.unet.register_forward_pre_hook(out_of_memory_from(5))
    slots = renderer.measure_slots(16, 16)
    hook.remove()
    assert slots == 4
    hook = model.unet.register_forward_pre_hook(out_of_memory_from(1))
    with pytest.raises(OutOfMemory, match="20 GiB"):
        renderer.measure_slots(24, 24)
    hook.remove()
