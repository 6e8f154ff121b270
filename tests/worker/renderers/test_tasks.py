"""Every task of every family: diffusers' own pictures, and the same bytes whatever shares the forwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.worker.renderers.pictured import Model, by_diffusers, pictured

ASKED = [
    ("StableDiffusionXLPipeline", ("", "image", "image+mask_image", "control_image")),
    ("StableDiffusion3Pipeline", ("", "image", "control_image")),
    ("FluxPipeline", ("", "image", "image+mask_image", "control_image")),
    ("QwenImagePipeline", ("", "image")),
    ("ZImagePipeline", ("", "image")),
]
MOST_DIFFERENCE = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("family", "tasks"), ASKED, ids=[family for family, _tasks in ASKED])
def test_tasks_share_forwards_and_paint_what_diffusers_paints(family: str, tasks: tuple[str, ...]) -> None:
    model = Model(family, controlled="control_image" in tasks)
    requests = [
        pictured(family, task, 2 * number + odd) for number, task in enumerate(tasks) for odd in (0, 1)
    ]
    together, forwards = model.paint(requests)
    assert {model.learned(request).batching for request in requests} == {"exact"}
    turned, _forwards = model.paint(requests[::-1])
    one_by_one = 0
    for request in requests:
        alone, its_forwards = model.paint([request])
        one_by_one += its_forwards
        values = together[request.seed]
        assert np.array_equal(values, turned[request.seed]), request
        assert np.array_equal(values, alone[request.seed]), request
        assert np.abs(values - by_diffusers(model, request)).max() <= MOST_DIFFERENCE, request
    assert forwards < one_by_one
    assert len({values.tobytes() for values in together.values()}) == len(requests)


@pytest.mark.parametrize("scheduler", ["default", "LMS"])
def test_in_the_slots_that_diffusers_own_call_has_an_inpainted_picture_is_its_to_the_bit(
    scheduler: str,
) -> None:
    """So what differs in eight slots is the rounding of a larger forward, and nothing that is computed."""
    model = Model("StableDiffusionPipeline")
    for seed, slots in ((0, 2), (1, 1)):  # guided, and not
        request = pictured("StableDiffusionPipeline", "image+mask_image", seed, scheduler=scheduler)
        theirs = by_diffusers(model, request)
        same, _forwards = model.paint([request], slots=slots)
        assert np.array_equal(same[seed], theirs)
        eight, _forwards = model.paint([request])
        assert np.abs(eight[seed] - theirs).max() <= 2 * MOST_DIFFERENCE
