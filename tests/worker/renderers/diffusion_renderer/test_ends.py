"""What stops, fails or is not finite leaves the other pictures as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.errors import LatentsError, RenderError
from jobs.inputs.inputs import NO_INPUTS
from tests.held_inputs import LATENTS, holding
from tests.worker.renderers.diffusion_renderer.wanted import (
    BUCKET,
    MIX,
    SMALL,
    Source,
    paint,
    render,
    slots_seen,
    wanted,
)
from worker.engine.renderer import BrokenDevice, OutOfMemory, Picture, Stopped
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer


def test_stop_leaves_between_two_steps(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 2

    def act() -> None:
        with pytest.raises(Stopped):
            render(renderer, [wanted(0, scheduler="DDIM", num_inference_steps=40)], stop=stop)

    seen = slots_seen(model, act)
    assert (len(seen["unet"]), seen["vae"]) == (2, [])
    asked.clear()
    with pytest.raises(Stopped):
        renderer.render_alone(wanted(0).request, NO_INPUTS, stop)


def test_what_was_finished_when_it_stops_is_still_handed_over(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, alone: dict[int, bytes]
) -> None:
    """After 3 forwards one picture is done and waits for others to be decoded with; after 5 a second."""
    forwards: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: forwards.append(1))
    found: dict[int, bytes] = {}
    wave = [MIX[0], MIX[2], wanted(50, scheduler="DDIM", num_inference_steps=40)]
    with pytest.raises(Stopped):
        for outcomes in renderer.render(BUCKET, Source(wave), lambda: len(forwards) == 5):
            assert len(forwards) == 5 or not outcomes, "four are decoded together"
            for asked, picture in outcomes:
                assert isinstance(picture, Picture)
                found[asked.request.seed] = picture.pixels.tobytes()
    hook.remove()
    assert len(forwards) == 5
    assert found == {seed: alone[seed] for seed in (0, 2)}
    last = wanted(60, num_inference_steps=1)
    assert renderer.render_alone(last.request, NO_INPUTS, lambda: True).finite


def test_a_request_that_cannot_be_rendered_gets_its_error_and_the_others_their_pictures(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    cut = wanted(50, own_latents=True)
    cut = replace(cut, inputs=holding(cut.inputs.latents(LATENTS)[:, :3]))
    many = wanted(51, scheduler="DDIM", num_inference_steps=1500)
    assert renderer.forwards(many.request) == 1500
    found = render(renderer, [cut, *MIX[:3], many], [MIX[3]])
    wrong, too_many = found.pop(50), found.pop(51)
    assert isinstance(wrong, LatentsError)
    assert "(1, 4, 8, 8)" in str(wrong)
    assert isinstance(too_many, RenderError)
    assert str(too_many).startswith("num_inference_steps = 1500: DDIM cannot run so many (")
    assert str(too_many).endswith("): use another number, or another scheduler")
    for seed, picture in found.items():
        assert isinstance(picture, Picture)
        assert picture.pixels.tobytes() == alone[seed]
    assert set(render(renderer, [many])) == {51}


def test_what_is_not_finite_is_said_and_its_neighbours_are_unharmed(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    bad = replace(wanted(50, own_latents=True), inputs=holding(np.full((4, 8, 8), np.nan, np.float32)))
    found = render(renderer, [bad, *MIX])
    broken = found.pop(50)
    assert isinstance(broken, Picture)
    assert not broken.finite
    assert (broken.pixels.shape, broken.pixels.dtype) == ((32, 32, 3), np.uint8)
    for seed, picture in found.items():
        assert isinstance(picture, Picture)
        assert picture.finite
        assert picture.pixels.tobytes() == alone[seed]


def test_values_that_only_the_decoder_makes_infinite_are_said_too(
    renderer: DiffusionRenderer, model: ImageDiffusionModel
) -> None:
    def overflow(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        output[0, 0, 0, 0] = torch.inf
        return output

    hook = model.vae.decoder.register_forward_hook(overflow)
    found = render(renderer, MIX[:2], bucket=SMALL)
    hook.remove()
    finite = {seed: picture.finite for seed, picture in found.items()}  # type: ignore[union-attr]
    assert sorted(finite.values()) == [False, True]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), OutOfMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), OutOfMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OutOfMemory),
        (RuntimeError("Triton Error [CUDA]: out of memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), BrokenDevice),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), BrokenDevice),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), BrokenDevice),
        (RuntimeError("index out of range"), RuntimeError),
        (RuntimeError("no tokens for 'a robot out of memory'"), RuntimeError),
    ],
    ids=str,
)
def test_errors_of_the_device_are_told_from_those_of_a_request(
    renderer: DiffusionRenderer, model: ImageDiffusionModel, raised: Exception, message: type[Exception]
) -> None:
    def fail(_module: object, _args: object) -> None:
        raise raised

    for part in (model.unet, model.vae.decoder):
        hook = part.register_forward_pre_hook(fail)
        with pytest.raises(message) as among_others:
            paint(renderer, [MIX[0]])
        with pytest.raises(message) as by_itself:
            renderer.render_alone(MIX[0].request, NO_INPUTS, bool)
        hook.remove()
        assert {among_others.type, by_itself.type} == {message}
