"""Requests in, pictures out, by a pipeline's own call: the same bytes whatever shares the forwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import ImagemillError, LatentsError, ModelError, RenderError
from jobs.inputs.inputs import NO_INPUTS
from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import (
    BUCKET,
    CPU,
    MIX,
    Found,
    Source,
    beginning_with,
    paint,
    render,
    wanted,
)
from worker.diffusion.painter import Painter
from worker.diffusion.precision import resolve_precision
from worker.diffusion.sharing_errors import Refused
from worker.engine.renderer import OutOfMemory, Picture, Stopped
from worker.renderers import pipeline_renderer
from worker.renderers.pipeline_renderer import PipelineRenderer


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


def new_renderer(
    family: str = "StableDiffusionXLPipeline",
    *,
    precision: str = "fp32",
    revision: str = "1",
    change: Any = None,
) -> PipelineRenderer:
    pipeline = FAMILIES[family].build()
    if precision == "bf16":
        pipeline.to(torch.bfloat16)
    if change is not None:
        change(pipeline)
    return PipelineRenderer(
        pipeline,
        precision=resolve_precision(precision, CPU),
        device=CPU,
        model="tiny",
        revision=revision,
    )


@pytest.fixture(scope="module")
def renderer(_one_thread_and_a_cache_of_its_own: None) -> PipelineRenderer:
    return new_renderer()


def test_texts_with_weights_and_of_any_length_keep_their_bytes(renderer: PipelineRenderer) -> None:
    read = [
        wanted(20, prompt="a (red:1.4) star", syntax="a1111"),
        wanted(21, prompt="a star BREAK a moon", syntax="a1111", num_inference_steps=3),
        wanted(22, prompt="(star)1.3 moon", syntax="compel", negative_prompt="(ugly)1.2"),
        wanted(23, prompt="a small red house, " * 20, long_prompts="chunk", guidance_scale=1.0),
    ]
    alone = {seed: picture for one in [*read, *MIX] for seed, picture in paint(renderer, [one]).items()}
    assert len(set(alone.values())) == len(alone)
    assert paint(renderer, [*read, *MIX]) == alone
    assert paint(renderer, [*MIX, *read][::-1]) == alone


def test_pictures_are_the_pipeline_s_own_to_one_step_of_256(renderer: PipelineRenderer) -> None:
    found = render(renderer, MIX)
    painter = Painter(FAMILIES["StableDiffusionXLPipeline"].build())
    for one in MIX:
        with torch.no_grad():
            plain = painter.paint(one.request).pixels.astype(int)
        picture = found[one.request.seed]
        assert isinstance(picture, Picture)
        assert np.abs(picture.pixels.astype(int) - plain).max() <= 1


def test_bytes_follow_from_the_request_alone(renderer: PipelineRenderer) -> None:
    together = paint(renderer, MIX)
    assert paint(renderer, MIX[::-1]) == together
    for one in MIX:
        assert paint(renderer, [one]) == {one.request.seed: together[one.request.seed]}


def test_a_pipeline_loaded_again_paints_the_same_bytes(renderer: PipelineRenderer) -> None:
    assert paint(new_renderer(), MIX) == paint(renderer, MIX)


def test_an_image_takes_as_many_slots_as_its_calls_have(renderer: PipelineRenderer) -> None:
    guided, unguided = MIX[0].request, MIX[1].request
    assert (renderer.slots(guided), renderer.slots(unguided)) == (2, 1)
    assert (renderer.forwards(guided), renderer.forwards(unguided)) == (4, 2)


def test_guidance_by_two_calls_takes_one_slot_in_twice_the_forwards() -> None:
    renderer = new_renderer("QwenImagePipeline")
    guided = wanted(1, guidance_scale=4.0).request
    assert (renderer.slots(guided), renderer.forwards(guided)) == (1, 4)


def test_an_image_that_the_pipeline_refuses_fails_alone(renderer: PipelineRenderer) -> None:
    wrong = wanted(9, arguments='{"original_size":"no pair"}')
    found = render(renderer, [wrong, *MIX])
    assert isinstance(found.pop(9), RenderError)
    calm = paint(renderer, MIX)
    assert {seed: picture.pixels.tobytes() for seed, picture in found.items()} == calm  # type: ignore[union-attr]


def test_an_image_that_cannot_share_forwards_fails_alone_and_is_told_what_to_do(
    renderer: PipelineRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise Refused("the pipeline sets unet.training, which its images share")

    monkeypatch.setattr(renderer.pipeline, "prepare_latents", refuse, raising=False)
    [(_seed, error)] = render(renderer, [wanted(1)]).items()
    assert isinstance(error, RenderError)
    assert str(error) == (
        "the pipeline sets unet.training, which its images share: leave out the `arguments` that ask for it, "
        "or report it"
    )


def test_latents_of_another_shape_fail_their_image_alone(renderer: PipelineRenderer) -> None:
    wrong = beginning_with(np.zeros((3, 5, 5), "float32"), wanted(9))
    found = render(renderer, [wrong, MIX[0]])
    assert isinstance(found[9], LatentsError)
    assert isinstance(found[0], Picture)


def test_initial_latents_are_painted_as_given(renderer: PipelineRenderer) -> None:
    side = 64 // renderer.pipeline.vae_scale_factor
    latents = np.random.default_rng(1).standard_normal((4, side, side), dtype="float32")
    own = beginning_with(latents, wanted(7))
    assert paint(renderer, [own]) != paint(renderer, [wanted(7)])
    assert paint(renderer, [own, *MIX])[7] == paint(renderer, [own])[7]


def test_a_non_finite_image_is_marked_and_its_neighbours_keep_their_bytes(renderer: PipelineRenderer) -> None:
    side = 64 // renderer.pipeline.vae_scale_factor
    broken = beginning_with(np.full((4, side, side), np.nan, "float32"), wanted(9))
    found = render(renderer, [broken, *MIX])
    picture = found.pop(9)
    assert isinstance(picture, Picture)
    assert not picture.finite
    assert {seed: one.pixels.tobytes() for seed, one in found.items()} == paint(renderer, MIX)  # type: ignore[union-attr]


def test_it_stops_between_two_forwards_and_delivers_what_was_finished(renderer: PipelineRenderer) -> None:
    asked = iter([False, False, True])
    found: Found = {}
    with pytest.raises(Stopped):
        for outcomes in renderer.render(BUCKET, Source(renderer, MIX), lambda: next(asked)):
            found |= {one.request.seed: result for one, result in outcomes}
    assert found
    assert len(found) < len(MIX)
    assert paint(renderer, MIX).keys() == {one.request.seed for one in MIX}, "it goes on as before"


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_any_number_of_slots_paints_every_image(renderer: PipelineRenderer, slots: int) -> None:
    assert len(paint(renderer, MIX, replace(BUCKET, slots=slots))) == len(MIX)


def test_mode_fast_paints_the_same_pictures(renderer: PipelineRenderer) -> None:
    fast = render(renderer, MIX, replace(BUCKET, mode="fast"))
    exact = render(renderer, MIX)
    for seed, picture in fast.items():
        other = exact[seed]
        assert isinstance(picture, Picture)
        assert isinstance(other, Picture)
        assert np.abs(picture.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


def test_out_of_memory_in_a_forward_or_in_an_image_s_own_work_is_told_from_errors() -> None:
    def no_memory(*_args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    renderer = new_renderer(revision="1")
    for part in ("unet", "text_encoder"):
        hook = getattr(renderer.pipeline, part).register_forward_pre_hook(no_memory)
        with pytest.raises(OutOfMemory):
            render(renderer, [wanted(77, prompt=f"never seen by {part}")])
        hook.remove()
    assert paint(renderer, MIX)


class Failing:
    """A hook that raises in the second forward, and knows which tensors of forwards are still held."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind
        self.tensors: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, _module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        self.tensors += map(weakref.ref, tensors)
        if len(self.tensors) > len(tensors):
            raise self.kind("CUDA out of memory")

    @property
    def held(self) -> int:
        return sum(one() is not None for one in self.tensors)


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
def test_a_forward_in_which_memory_ran_out_holds_none_once_the_error_is_gone(
    renderer: PipelineRenderer,
) -> None:
    failing = Failing(torch.OutOfMemoryError)
    hook = renderer.pipeline.unet.register_forward_pre_hook(failing, with_kwargs=True)
    try:
        render(renderer, MIX)
    except OutOfMemory:
        assert failing.tensors
    hook.remove()
    assert failing.held == 0


@pytest.mark.usefixtures("_uncollected")
def test_an_image_that_failed_by_itself_holds_no_memory() -> None:
    renderer = new_renderer("StableDiffusionPAGPipeline", revision="fails")
    failing = Failing(ValueError)
    hook = renderer.pipeline.unet.register_forward_pre_hook(failing, with_kwargs=True)
    found = render(renderer, [wanted(1)])
    hook.remove()
    assert str(found[1]) == "ValueError: CUDA out of memory"
    assert failing.tensors
    assert failing.held == 0


def test_memory_that_runs_out_while_slots_are_measured_leaves_fewer_slots() -> None:
    renderer = new_renderer(revision="1")

    def no_memory(_module: Any, args: Any, call: Any) -> None:
        if len(args[0] if args else call["sample"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = renderer.pipeline.unet.register_forward_pre_hook(no_memory, with_kwargs=True)
    assert renderer.measure_slots(64, 64) in (2, 4)
    hook.remove()


def test_an_image_finds_room_beside_a_spare_slot_in_the_fewest_slots() -> None:
    renderer = new_renderer("ZImagePipeline")
    assert renderer.slots(MIX[0].request) == 2
    images = [wanted(1), wanted(2, guidance_scale=0.0)]
    assert paint(renderer, images, replace(BUCKET, slots=2)).keys() == {1, 2}


def test_amp_decodes_in_the_autoencoder_s_own_float32() -> None:
    renderer = new_renderer(precision="amp")
    seen: set[tuple[bool, torch.dtype]] = set()
    renderer.pipeline.vae.decoder.register_forward_pre_hook(
        lambda _module, args: seen.add((torch.is_autocast_enabled("cpu"), args[0].dtype))
    )
    assert paint(renderer, MIX[:1])
    assert seen == {(False, torch.float32)}


def test_an_error_in_a_shared_forward_is_raised_for_the_engine_to_isolate(renderer: PipelineRenderer) -> None:
    def fail(*_args: Any) -> None:
        raise RuntimeError("mat1 and mat2")

    hook = renderer.pipeline.unet.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="mat1"):
        render(renderer, MIX)
    hook.remove()


def test_alone_and_in_float32_a_picture_is_float32_s_and_the_weights_come_back() -> None:
    half = new_renderer(precision="bf16")
    before = paint(half, MIX[:2])
    alone = half.render_alone(MIX[0].request, NO_INPUTS, bool)
    exact = new_renderer().render_alone(MIX[0].request, NO_INPUTS, bool)
    # Weights that were rounded to bf16 paint another picture, but not far from it.
    assert np.abs(alone.pixels.astype(int) - exact.pixels.astype(int)).mean() < 8
    assert half.pipeline.unet.dtype == torch.bfloat16
    assert paint(half, MIX[:2]) == before


def test_bytes_are_equal_in_bf16_too() -> None:
    half = new_renderer(precision="bf16")
    assert half.batching == "exact"
    assert paint(half, MIX) == paint(half, MIX[::-1])


def test_slots_are_measured_once_and_are_at_least_those_of_an_image(
    renderer: PipelineRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def fewest(seconds: Callable[[int], float], _moved: Callable[[], None]) -> int:
        timed.append(16)
        assert seconds(16) > 0
        return 2

    monkeypatch.setattr(pipeline_renderer, "fewest_cheap_slots", fewest)
    sizes = [renderer.measure_slots(64, 64), renderer.measure_slots(64, 64), renderer.measure_slots(32, 64)]
    assert sizes == [2, 2, 2]
    assert len(timed) == 2


# What is learned when it is loaded.


def test_a_denoiser_that_looks_at_its_neighbours_renders_in_mode_fast_alone() -> None:
    def mingle(pipeline: Any) -> None:
        def lean(_module: Any, _args: Any, output: Any) -> Any:
            return (output[0] + 1e-6 * output[0].mean(), *output[1:])

        pipeline.unet.register_forward_hook(lean)

    renderer = new_renderer(revision="mingles", change=mingle)
    assert renderer.batching == "fast"


def test_a_denoiser_that_mixes_its_neighbours_is_refused() -> None:
    def mingle(pipeline: Any) -> None:
        def mix(_module: Any, _args: Any, output: Any) -> Any:
            return (output[0] * 0.5 + 0.5 * output[0].mean(0, keepdim=True), *output[1:])

        pipeline.unet.register_forward_hook(mix)

    with pytest.raises(ModelError, match="come out different"):
        new_renderer(revision="mixes", change=mingle)


def test_what_cannot_be_batched_is_rendered_one_image_a_forward_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renderer = new_renderer("StableDiffusionPAGPipeline")
    assert renderer.batching == "alone"
    assert [record.message for record in caplog.records if "one image a forward" in record.message]
    samples: dict[int, set[int]] = {}
    kinds = [wanted(seed, guidance_scale=(1.0, 5.0)[seed % 2], arguments=arguments) for seed, arguments in
             enumerate(["{}", "{}", '{"pag_scale":0}', '{"pag_scale":0}'])]  # fmt: skip
    for one in kinds:
        seen = samples.setdefault(one.request.seed, set())
        hook = renderer.pipeline.unet.register_forward_hook(
            lambda _module, _args, output, seen=seen: seen.add(len(output[0]))
        )
        paint(renderer, [one])
        hook.remove()
    assert samples == {one.request.seed: {renderer.slots(one.request)} for one in kinds}
    assert [*samples.values()] == [{2}, {3}, {1}, {2}], "guidance and perturbed attention take one more each"
    images = [wanted(1), wanted(2, guidance_scale=1.0), wanted(3, num_inference_steps=0)]
    found = render(renderer, images, replace(BUCKET, slots=2))
    assert isinstance(found[3], ImagemillError)
    assert found[1].pixels.tobytes() == paint(renderer, images[:1])[1]  # type: ignore[union-attr]
    with pytest.raises(Stopped):
        render(renderer, images, stop=lambda: True)


def test_a_pipeline_that_replaces_the_attention_leaves_it_as_it_was_whatever_happens() -> None:
    with_it, without = wanted(1), wanted(2, arguments='{"pag_scale":0}')
    painter = Painter(FAMILIES["StableDiffusionPAGPipeline"].build())
    with torch.no_grad():
        plain = painter.paint(without.request).pixels.tobytes()
    renderer = new_renderer("StableDiffusionPAGPipeline", revision="replaces")
    assert paint(renderer, [without]) == {2: plain}, "learning replaced nothing"
    forwards: list[int] = []

    def fail_in_the_second(*_args: Any) -> None:
        forwards.append(1)
        if len(forwards) == 2:
            raise RuntimeError("in the middle")

    hook = renderer.pipeline.unet.register_forward_pre_hook(fail_in_the_second)
    assert isinstance(render(renderer, [with_it])[1], RenderError)
    hook.remove()
    assert paint(renderer, [without]) == {2: plain}, "nor did an image that failed"


def test_what_was_learned_is_kept_for_the_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level("INFO")
    first = paint(new_renderer(revision="kept"), MIX[:2])
    assert "learned in" in caplog.text
    [kept] = (tmp_path / "imagemill" / "batching").iterdir()
    caplog.clear()
    assert paint(new_renderer(revision="kept"), MIX[:2]) == first
    assert "learned in" not in caplog.text
    kept.write_text('{"batching": "exact"}')
    assert paint(new_renderer(revision="kept"), MIX[:2]) == first
    assert "learned in" in caplog.text, "a file that cannot be read is learned again"
