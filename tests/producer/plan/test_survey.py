"""What a manifest would cost is counted in one pass, and compared with what an output holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from jobs.entry import Entry
from jobs.ledger.job import SlotsKey
from jobs.models.models import BUILT_IN
from jobs.schedulers import SCHEDULERS, forwards
from producer.manifest.manifest import Manifest
from producer.plan.survey import Group, Holding, Survey, device_times, survey
from producer.requests.expand import Identified, identify
from tests.reported import Reported
from worker.diffusion.build_scheduler import build_scheduler

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def manifest(prompts: Sequence[object], **keys: object) -> Manifest:
    return Manifest.from_json(
        {"name": "foxes", "model": "instant", "revision": "instant-1", "output": "/data/foxes",
         "settings": {"height": 64, "width": 64, "num_inference_steps": 10}, "prompts": prompts} | keys
    )  # fmt: skip


def requests(asked: Manifest) -> Iterator[Identified]:
    return identify(asked, BUILT_IN["instant"])


def held(asked: Manifest) -> Holding:
    """An output that holds all that a manifest asks for."""
    holding = Holding()
    for image_id, entry in requests(asked):
        holding.add(image_id, entry.id)
    return holding


def against(asked: Manifest, holding: Holding) -> Survey:
    return survey(requests(asked), holding)


def left(before: Manifest, holding: Holding) -> list[tuple[str, bool]]:
    """The prompts that are orphans by now, and whether each was replaced."""
    return [
        (entry.request.prompt, holding.replaced(entry.id))
        for image_id, entry in requests(before)
        if holding.orphaned(image_id)
    ]


@pytest.mark.parametrize("scheduler", [scheduler.name for scheduler in SCHEDULERS])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_an_image_costs_the_forwards_that_its_scheduler_takes(scheduler: str, steps: int) -> None:
    real = build_scheduler(scheduler, BETAS)
    real.set_timesteps(steps)
    assert forwards(scheduler, steps) == len(real.timesteps)


def test_images_are_counted_by_size_steps_and_guidance_and_schedulers_share_a_line() -> None:
    asked = manifest(
        ["a", "b", {"prompt": "c", "scheduler": "Heun"}, {"prompt": "d", "guidance_scale": 1},
         {"prompt": "e", "width": 128, "images_per_prompt": 5}]
    )  # fmt: skip
    found = against(asked, Holding())
    assert found.groups == [
        Group(64, 128, 10, True, images=5, to_render=5, row_evaluations=100),
        Group(64, 64, 10, True, images=3, to_render=3, row_evaluations=20 + 20 + 38),
        Group(64, 64, 10, False, images=1, to_render=1, row_evaluations=10),
    ]
    assert (found.images, found.held, found.to_render) == (9, 0, 9)


@pytest.mark.parametrize(("prompts", "last"), [(2, []), (4, ["p3"]), (9, ["p6", "p7", "p8"])])
def test_the_first_and_the_last_requests_are_shown_once(prompts: int, last: list[str]) -> None:
    found = against(manifest([f"p{n}" for n in range(prompts)]), Holding())
    assert [one.entry.request.prompt for one in found.first] == [f"p{n}" for n in range(min(3, prompts))]
    assert [one.entry.request.prompt for one in found.last] == last
    assert all(one.image_id == one.entry.request.image_id for one in found.first + found.last)


def test_what_the_output_holds_costs_nothing() -> None:
    before, now = manifest(["a", "b"]), manifest(["a", "b", "c"])
    holding = held(before)
    found = against(now, holding)
    assert found.groups == [Group(64, 64, 10, True, images=3, to_render=1, row_evaluations=20)]
    assert [one.held for one in found.first] == [True, True, False]
    assert left(before, holding) == []


def test_another_picture_under_the_same_id_is_changed_and_its_forerunner_an_orphan() -> None:
    before = manifest([{"prompt": "a fox", "id": "1"}, {"prompt": "a cat", "id": "2"}, "a dog"])
    now = manifest([{"prompt": "a red fox", "id": "1"}, {"prompt": "a cat", "id": "2"}])
    holding = held(before)
    assert against(now, holding).to_render == 1
    assert left(before, holding) == [("a fox", True), ("a dog", False)]


def test_one_more_picture_of_an_id_is_new_and_changes_none() -> None:
    before = manifest([{"prompt": "a fox", "id": "1", "seeds": [1, 2]}])
    holding = held(before)
    assert against(manifest([{"prompt": "a fox", "id": "1", "seeds": [1, 2, 3]}]), holding).to_render == 1
    assert left(before, holding) == []


def test_each_new_picture_of_an_id_stands_for_one_orphan() -> None:
    before = manifest([{"prompt": "a fox", "id": "1", "seeds": [1, 2, 3]}])
    holding = held(before)
    against(manifest([{"prompt": "a cat", "id": "1", "seeds": [1, 2]}]), holding)
    assert [replaced for _, replaced in left(before, holding)] == [True, True, False]


def test_an_image_that_an_output_holds_twice_counts_once() -> None:
    before = manifest([{"prompt": "a fox", "id": "1"}])
    holding = held(before)
    for image_id, entry in requests(before):
        holding.add(image_id, entry.id)
    assert holding.images == 1
    against(manifest(["a cat"]), holding)
    assert left(before, holding) + left(before, holding) == [("a fox", False)]


def test_no_request_is_kept_but_the_ends() -> None:
    [(image_id, entry)] = requests(manifest(["a"]))
    alive: set[int] = set()
    most = 0

    class Noted(Entry):
        def __del__(self) -> None:
            alive.discard(self.seed)

    def stream() -> Iterator[Identified]:
        nonlocal most
        for seed in range(5000):
            alive.add(seed)
            most = max(most, len(alive))
            yield image_id, Noted(*entry._replace(seed=seed))

    found = survey(stream(), Holding())
    assert found.images == 5000
    assert most < 20


def test_time_is_reported_for_each_kind_of_device_that_was_measured_with_the_model() -> None:
    small, large = Group(64, 64, 10, True, 3, 2, 400), Group(512, 512, 10, True, 1, 1, 100)
    rates = {
        SlotsKey("card", "bf16", "r", 64, 64): 100.0,
        SlotsKey("card", "bf16", "r", 512, 512): 10.0,
        SlotsKey("cpu", "fp32", "r", 64, 64): 4.0,
        SlotsKey("cpu", "fp32", "other", 512, 512): 1.0,
    }
    assert device_times([small, large], rates, "r", "auto") == [
        ("card", "bf16", 4.0 + 10.0, 3),
        ("cpu", "fp32", 100.0, 2),
    ]
    assert device_times([small, large], rates, "r", "fp32") == [("cpu", "fp32", 100.0, 2)]
    assert device_times([large], rates, "other", "bf16") == []


def test_progress_is_reported_every_10_000_images() -> None:
    class Enough(Exception):
        pass

    class Twice(Reported):
        def count(self, done: int, total: int | None = None, /) -> None:
            super().count(done, total)
            if len(self.counts) == 2:
                raise Enough

    reported = Twice()
    [(image_id, entry)] = requests(manifest(["a"]))
    endless = ((image_id, entry) for _ in count())
    with pytest.raises(Enough):
        survey(endless, Holding(), reported)
    assert reported.counts == [(10_000, None), (20_000, None)]
