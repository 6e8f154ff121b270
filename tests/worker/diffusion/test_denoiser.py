"""Images enter and leave the slots of a real UNet; what each becomes does not depend on the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from worker.diffusion.denoiser import Denoiser, LatentImage
from worker.diffusion.sampling import sample
from worker.diffusion.sampling_settings import Sampling
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.pipelines import load_model

SIZE = 16
"""Pixels: latents of 4 x 4, small for speed."""
SLOTS = 16

SETTINGS = [
    {"scheduler": "LMS", "num_inference_steps": 3, "guidance_scale": 7.5},
    {"scheduler": "Euler a", "num_inference_steps": 4, "guidance_scale": 1.0},
    {"scheduler": "DDIM", "num_inference_steps": 2, "guidance_scale": 3.0},
    {"scheduler": "UniPC", "num_inference_steps": 6, "guidance_scale": 1.0},
    {"scheduler": "DPM++ 2M SDE", "num_inference_steps": 5, "guidance_scale": 2.0},
    {"scheduler": "Heun", "num_inference_steps": 2, "guidance_scale": 1.0},
]


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_model("shapes-random", "shapes-random-1", "fp32", "cpu")
    # Not linear, so that images run through the scheduler itself.
    model.scheduler_DDIM = DDIMScheduler.from_config(model.scheduler_DDIM.config, thresholding=True)
    yield model
    torch.set_num_threads(before)


def image_of(model: ImageDiffusionModel, seed: int, **changes: object) -> LatentImage:
    """The image of a seed: guidance, steps and scheduler follow from it, the initial latents are noise."""
    settings = {**SETTINGS[seed % len(SETTINGS)], **changes}
    latents = settings.pop("latents", None)
    guided = settings["guidance_scale"] > 1.0  # type: ignore[operator]
    negative, prompt = model.get_text_embeds(["blurry", f"a star {seed}"], batch=2)
    sampling = Sampling(SIZE, SIZE, seed=seed, **settings)  # type: ignore[arg-type]
    return model.latent_image(seed, prompt, negative if guided else None, sampling, latents)  # type: ignore[arg-type]


def slots_of(model: ImageDiffusionModel, slots: int = SLOTS, *, padded: bool = True) -> Denoiser:
    return model.denoiser(SIZE, SIZE, slots, padded=padded)


def run(denoiser: Denoiser, images: Iterable[LatentImage]) -> dict[int, bytes]:
    """Everything that the images become together, by seed; those that do not fit enter as others leave."""
    waiting = list(images)

    def take(free_slots: int) -> Iterator[LatentImage]:
        while waiting and waiting[0].slots <= free_slots:
            free_slots -= waiting[0].slots
            yield waiting.pop(0)

    done = {image.key: latents for finished in sample(denoiser, take) for image, latents in finished}
    return {seed: latents.numpy().tobytes() for seed, latents in done.items()}


@pytest.fixture(scope="module")
def alone(model: ImageDiffusionModel) -> dict[int, bytes]:
    """What the images of seeds 0 .. 11 become, each in slots of its own."""
    found: dict[int, bytes] = {}
    for seed in range(12):
        found |= run(slots_of(model), [image_of(model, seed)])
    assert len(set(found.values())) == 12
    return found


def test_slots_are_taken_and_given_back_and_every_forward_is_counted(model: ImageDiffusionModel) -> None:
    denoiser = slots_of(model, 4)
    denoiser.enter(image_of(model, 0))  # LMS, 3 forwards, guided
    denoiser.enter(image_of(model, 3))  # UniPC, 6 forwards, unguided
    assert (denoiser.free_slots, denoiser.running) == (1, 2)
    finished = [[image.key for image, _latents in denoiser.step()] for _ in range(3)]
    assert finished == [[], [], [0]]
    assert (denoiser.free_slots, denoiser.running, denoiser.forwards) == (3, 1, 3)
    finished = [[image.key for image, _latents in denoiser.step()] for _ in range(3)]
    assert finished == [[], [], [3]]
    assert (denoiser.free_slots, denoiser.running, denoiser.forwards) == (4, 0, 6)
    assert denoiser.row_evaluations == 6 * 4


def test_an_image_that_does_not_fit_is_refused_and_nothing_is_lost_by_it(model: ImageDiffusionModel) -> None:
    denoiser = slots_of(model, 3)
    denoiser.enter(image_of(model, 0))
    with pytest.raises(ValueError, match="2 slots wanted, 1 are free"):
        denoiser.enter(image_of(model, 4))
    denoiser.enter(image_of(model, 1))
    assert denoiser.free_slots == 0
    with pytest.raises(ValueError, match="1 slots wanted, 0 are free"):
        denoiser.enter(image_of(model, 3))
    assert run(denoiser, []) == run(slots_of(model, 3), [image_of(model, 0), image_of(model, 1)])


def test_what_an_image_becomes_does_not_depend_on_the_others(
    model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    for order in (range(12), [5, 3, 8, 1, 10, 0, 7, 2, 11, 4, 9, 6]):
        assert run(slots_of(model), [image_of(model, seed) for seed in order]) == alone


@pytest.mark.parametrize(
    ("seed", "before"), [(1, 0), (4, 0), (4, 1)], ids=["unguided", "guided", "guided, shifted by a slot"]
)
def test_what_an_image_becomes_does_not_depend_on_its_slot(
    model: ImageDiffusionModel, alone: dict[int, bytes], seed: int, before: int
) -> None:
    image = image_of(model, seed)
    others = [image_of(model, 3) for _ in range(before)]
    copies = [replace(image_of(model, seed), key=100 + n) for n in range((SLOTS - before) // image.slots)]
    found = run(slots_of(model), [*others, *copies])
    assert {key: found[key] == alone[seed] for key in found if key >= 100} == {
        copy.key: True for copy in copies
    }


def test_what_an_image_becomes_does_not_depend_on_when_it_enters(
    model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    denoiser = slots_of(model)
    entering = list(range(12))
    found: dict[int, bytes] = {}
    while entering or denoiser.running:
        if entering:  # one after another, so that all stand at other steps
            denoiser.enter(image_of(model, entering.pop()))
        found |= {image.key: latents.numpy().tobytes() for image, latents in denoiser.step()}
    assert found == alone


def test_a_longer_schedule_may_enter_among_shorter_ones(model: ImageDiffusionModel) -> None:
    """The tables on the device grow; what is in them already stays."""
    steps = {1: 2, 3: 5, 4: 8}
    denoiser = slots_of(model)
    found: dict[int, bytes] = {}
    for seed, count in steps.items():
        denoiser.enter(image_of(model, seed, num_inference_steps=count))
        found |= {image.key: latents.numpy().tobytes() for image, latents in denoiser.step()}
    found |= run(denoiser, [])
    for seed, count in steps.items():
        assert run(slots_of(model), [image_of(model, seed, num_inference_steps=count)]) == {seed: found[seed]}


def test_images_that_are_not_finite_harm_no_neighbour_and_nothing_after_them(
    model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    values = {30: float("nan"), 31: float("inf"), 32: float("nan")}  # LMS, Euler a, DDIM by itself
    broken = [image_of(model, seed, latents=torch.full((4, 4, 4), value)) for seed, value in values.items()]
    denoiser = slots_of(model)
    found = run(denoiser, [*broken, image_of(model, 3), image_of(model, 4)])
    for seed in values:
        assert not torch.frombuffer(bytearray(found.pop(seed)), dtype=torch.float32).isfinite().all()
    assert found == {3: alone[3], 4: alone[4]}
    # The slots and places that they had are used again.
    assert run(denoiser, [image_of(model, seed) for seed in range(12)]) == alone


def test_without_padding_the_free_slots_are_left_out(model: ImageDiffusionModel) -> None:
    batches: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    denoiser = slots_of(model, 8, padded=False)
    found = run(denoiser, [image_of(model, seed) for seed in (0, 3)])  # 2 slots for 3 forwards, 1 for 6
    hook.remove()
    assert batches == [3, 3, 3, 1, 1, 1]
    assert (denoiser.forwards, denoiser.row_evaluations) == (6, 12)
    padded = run(slots_of(model, 8), [image_of(model, seed) for seed in (0, 3)])
    for seed in (0, 3):
        fast, exact = (
            torch.frombuffer(bytearray(whose[seed]), dtype=torch.float32) for whose in (found, padded)
        )
        assert (fast - exact).abs().max() <= 1e-4 * exact.abs().max()


def test_without_padding_the_bits_are_others_so_the_promise_needs_it(
    model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    """Or the tests of this promise could not fail: here, too, it is latents that are compared, not pixels."""
    differ = []
    for seed in range(12):
        [latents] = run(slots_of(model, padded=False), [image_of(model, seed)]).values()
        differ.append(latents != alone[seed])
    assert any(differ)


def test_leaving_the_loop_leaves_between_two_steps(model: ImageDiffusionModel) -> None:
    denoiser = slots_of(model)
    for count, _finished in enumerate(sample(denoiser, lambda _free: [image_of(model, 3)]), 1):
        if count == 2:
            break
    assert (denoiser.forwards, denoiser.running) == (2, 2)
