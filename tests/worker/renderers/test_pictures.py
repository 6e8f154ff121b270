"""Images with pictures in a renderer by interception: learned when the first comes, and each for itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.adapters import CONTROLNETS
from jobs.errors import InputError, ModelError, RenderError
from tests.held_inputs import HeldInputs
from tests.tiny.controlnets import controlnet_of
from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import CPU, MIX, Wanted, paint, render
from tests.worker.renderers.pictured import EDGES, INPUTS, MASKED, PHOTO, by_call, pictured
from worker.diffusion.painters import Controlnets
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Picture
from worker.renderers.pipeline_renderer import PipelineRenderer

FAMILY = "StableDiffusionXLPipeline"
BROKEN = "e" * 64


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
    torch.set_num_threads(before)


def new_renderer(controlnets: int = 1, revision: str = "1", change: Any = None) -> PipelineRenderer:
    pipeline = FAMILIES[FAMILY].build()
    beside = {f"edges {number}": controlnet_of(pipeline, 3 + number) for number in range(controlnets)}
    if change is not None:
        for controlnet in beside.values():
            change(controlnet)
    return PipelineRenderer(
        pipeline,
        precision=resolve_precision("fp32", CPU),
        device=CPU,
        model="tiny",
        revision=revision,
        controlnets=Controlnets(beside, tuple(str(1 + number) for number in range(controlnets))),
    )


@pytest.fixture(scope="module")
def renderer(_one_thread_and_a_cache_of_its_own: Path) -> PipelineRenderer:
    return new_renderer()


def asked(task: str, seed: int, **settings: Any) -> Wanted:
    return Wanted(pictured(FAMILY, task, seed, **settings), INPUTS)


ASKED = [
    asked("image", 10),
    asked("image", 11, scheduler="DDIM"),
    asked("image+mask_image", 12, negative_prompt="blurry"),
    asked("control_image", 14),
    asked("image+control_image", 16),
]


def test_images_of_all_tasks_share_forwards_with_those_of_text_and_keep_their_bytes(
    renderer: PipelineRenderer,
) -> None:
    images = [*ASKED, *MIX[:3]]
    alone = {seed: picture for one in images for seed, picture in paint(renderer, [one]).items()}
    assert len(set(alone.values())) == len(alone)
    calls: list[int] = []
    hook = renderer.pipeline.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    assert paint(renderer, images) == alone
    together = len(calls)
    assert paint(renderer, images[::-1]) == alone
    hook.remove()
    assert together < sum(renderer.forwards(one.request) for one in images)


def test_what_a_mask_keeps_is_the_originals_to_the_bit(renderer: PipelineRenderer) -> None:
    one = asked("image+mask_image", 20)
    picture = render(renderer, [one])[20]
    assert isinstance(picture, Picture)
    original = by_call(one.request, "image")
    kept = np.ones((64, 64), bool)
    kept[MASKED] = False
    assert np.array_equal(picture.pixels[kept], np.asarray(original)[kept])
    assert not np.array_equal(picture.pixels[MASKED], np.asarray(original)[MASKED])


def test_an_image_whose_picture_cannot_be_read_fails_alone(renderer: PipelineRenderer) -> None:
    expected = paint(renderer, ASKED)
    files = {**INPUTS.files, BROKEN: INPUTS.files[PHOTO][:60]}
    missing = Wanted(replace(ASKED[0].request, seed=30, image="f" * 64), INPUTS)
    broken = Wanted(replace(ASKED[0].request, seed=31, image=BROKEN), HeldInputs(files=files))
    found = render(renderer, [ASKED[0], missing, ASKED[1], broken, *ASKED[2:]])
    for seed, message in ((30, "is missing"), (31, f"image: the file of SHA-256 {BROKEN} is a broken")):
        assert isinstance(found[seed], InputError)
        assert message in str(found[seed])
    pictures = {seed: found[seed] for seed in expected}
    assert all(isinstance(picture, Picture) for picture in pictures.values())
    assert {seed: one.pixels.tobytes() for seed, one in pictures.items()} == expected  # type: ignore[union-attr]


def test_a_task_is_learned_at_its_first_image_and_kept_for_the_next_worker(
    _one_thread_and_a_cache_of_its_own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def learned() -> list[str]:
        return [one.getMessage().split(" s ")[1] for one in caplog.records if "learned in" in one.message]

    caplog.set_level(logging.INFO)
    first = new_renderer(0, revision="kept")
    assert learned() == ["how images of tiny share forwards"]
    before = paint(first, [ASKED[0]])
    assert learned()[1:] == ["how images of tiny with image share forwards"]
    caplog.clear()
    assert paint(new_renderer(0, revision="kept"), [ASKED[0]]) == before
    assert learned() == []


def test_a_task_that_comes_out_different_is_refused_and_not_the_model() -> None:
    def follow_the_batch(controlnet: torch.nn.Module) -> None:
        controlnet.register_forward_hook(
            lambda _module, _args, output: ([one * len(output[1]) for one in output[0]], output[1])
        )

    renderer = new_renderer(revision="different", change=follow_the_batch)
    controlled = [asked("control_image", 14), asked("control_image", 15)]
    found = render(renderer, [*controlled, ASKED[0], MIX[0]])
    for one in controlled:
        failure = found[one.request.seed]
        assert isinstance(failure, RenderError)
        assert "StableDiffusionXLControlNetPipeline" in str(failure)
        assert "come out different" in str(failure)
    assert isinstance(found[ASKED[0].request.seed], Picture)
    assert isinstance(found[MIX[0].request.seed], Picture)


def test_several_controlnets_say_as_much_as_each_is_given(renderer: PipelineRenderer) -> None:
    two = new_renderer(2, revision="two")

    def scaled(first: float, second: float) -> Wanted:
        listed = [("a", "1", first), ("b", "2", second)]
        objects = [{"name": name, "revision": revision, "scale": scale} for name, revision, scale in listed]
        return asked("control_image", 14, controlnet=CONTROLNETS.plain(objects))

    both = paint(two, [scaled(0.7, 0.5)])
    assert paint(two, [scaled(0.7, 0.5), ASKED[0]])[14] == both[14]
    assert both != paint(two, [scaled(0.7, 0.0)])
    # One that has nothing to say leaves the picture of the other, to a rounding.
    alone, beside = render(renderer, [ASKED[3]])[14], render(two, [scaled(0.7, 0.0)])[14]
    assert isinstance(alone, Picture)
    assert isinstance(beside, Picture)
    assert np.abs(alone.pixels.astype(int) - beside.pixels).max() <= 1


def test_other_controlnets_than_are_loaded_are_refused(renderer: PipelineRenderer) -> None:
    other = ASKED[3].request.controlnet.replace('"revision":"1"', '"revision":"9"')
    found = render(renderer, [Wanted(replace(ASKED[3].request, controlnet=other), INPUTS)])[14]
    assert isinstance(found, RenderError)
    assert "the request is of 9, and what is loaded is 1" in str(found)


def test_a_controlnet_of_another_kind_is_refused_when_it_is_loaded() -> None:
    flux = FAMILIES["FluxPipeline"].build()
    with pytest.raises(
        ModelError, match=r"controlnet = edges: it is a FluxControlNetModel, .* ControlNetModel"
    ):
        PipelineRenderer(
            FAMILIES[FAMILY].build(),
            precision=resolve_precision("fp32", CPU),
            device=CPU,
            model="tiny",
            revision="1",
            controlnets=Controlnets({"edges": controlnet_of(flux)}, ("1",)),
        )


def test_a_picture_by_itself_in_fp32_is_nearly_the_one_among_others(renderer: PipelineRenderer) -> None:
    for one in ASKED:
        alone = renderer.render_alone(one.request, one.inputs, bool)
        shared = render(renderer, [one])[one.request.seed]
        assert isinstance(shared, Picture)
        assert np.abs(alone.pixels.astype(int) - shared.pixels).max() <= 1


def test_pictures_that_the_model_paints_nothing_from_are_refused(renderer: PipelineRenderer) -> None:
    request = replace(MIX[0].request, mask_image=EDGES)
    found = render(renderer, [Wanted(request, INPUTS)])[request.seed]
    assert isinstance(found, RenderError)
    assert "mask_image" in str(found)
