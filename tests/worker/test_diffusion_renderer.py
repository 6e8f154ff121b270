from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.errors import LatentsError
from jobs.request import ImageRequest
from worker.diffusion_renderer import DiffusionRenderer
from worker.image_diffusion_model import ImageDiffusionModel
from worker.pipelines import load_model
from worker.renderer import BrokenDevice, OutOfMemory, Renderer, Stopped, batch_key

MODEL = ("shapes-random", "shapes-random-1")
ONE = ImageRequest(
    prompt="a red circle",
    seed=1,
    height=64,
    width=64,
    num_inference_steps=3,
    model=MODEL[0],
    revision=MODEL[1],
)
OTHERS = [replace(ONE, prompt=f"a star {n}", seed=n, guidance_scale=1.5 + n) for n in range(3)]


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def model() -> Iterator[ImageDiffusionModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(*MODEL, "fp32", "cpu")
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def renderer(model: ImageDiffusionModel) -> Renderer:
    return DiffusionRenderer(model, rows=8)


def paint(renderer: Renderer, *requests: ImageRequest) -> list[bytes]:
    pictures = renderer.render(requests, [None] * len(requests), never)
    assert all(picture.finite for picture in pictures)
    return [picture.pixels.tobytes() for picture in pictures]


@pytest.mark.parametrize("scheduler", ["LMS", "Euler a"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bytes_of_a_picture_do_not_depend_on_its_neighbours(scheduler: str, precision: str) -> None:
    renderer = DiffusionRenderer(load_model(*MODEL, precision, "cpu"), rows=8)
    one, *others = (replace(request, scheduler=scheduler) for request in [ONE, *OTHERS])
    alone = paint(renderer, one)
    first, *rest = paint(renderer, one, *others)
    assert [first] == alone
    assert paint(renderer, *reversed(others), one) == [*reversed(rest), first]
    assert paint(renderer, others[1], one) == [rest[1], first]
    assert len({first, *rest}) == 4


def test_an_unguided_picture_does_not_depend_on_its_neighbours(renderer: Renderer) -> None:
    one, *others = (replace(request, guidance_scale=1.0) for request in [ONE, *OTHERS])
    assert paint(renderer, one) == paint(renderer, *others, one)[-1:]


def test_pictures_are_those_of_prompt_to_img(renderer: Renderer, model: ImageDiffusionModel) -> None:
    requests = [ONE, *OTHERS]
    expected = model.prompt_to_img(
        [request.prompt for request in requests],
        64,
        64,
        3,
        [request.guidance_scale for request in requests],
        seeds=[request.seed for request in requests],
        progress=False,
    )
    assert paint(renderer, *requests) == [picture.tobytes() for picture in expected]


def test_requests_may_share_a_batch_when_shape_steps_scheduler_and_guidance_allow(
    renderer: Renderer,
) -> None:
    key = batch_key(ONE)
    for same in ({"seed": 9}, {"prompt": "x"}, {"guidance_scale": 3.0}, {"negative_prompt": "y"}):
        assert batch_key(replace(ONE, **same)) == key
    other = ({"height": 32}, {"width": 32}, {"num_inference_steps": 4}, {"scheduler": "DDIM"})
    for changed in (*other, {"guidance_scale": 1.0}):
        assert batch_key(replace(ONE, **changed)) != key
    with pytest.raises(ValueError, match="different keys"):
        renderer.render([ONE, replace(ONE, height=32)], [None, None], never)


def test_a_guided_image_takes_two_rows(model: ImageDiffusionModel) -> None:
    unguided = replace(ONE, guidance_scale=1.0)
    renderer = DiffusionRenderer(model, rows=8)
    assert (renderer.batch_size(ONE), renderer.batch_size(unguided)) == (4, 8)
    assert DiffusionRenderer(model, rows=1).batch_size(ONE) == 1
    with pytest.raises(ValueError, match=r"1 \.\. 4"):
        renderer.render([ONE] * 5, [None] * 5, never)


def rows_seen(model: ImageDiffusionModel, act: Callable[[], object]) -> dict[str, set[int]]:
    seen: dict[str, set[int]] = {"text": set(), "unet": set(), "vae": set()}
    hooks = [
        model.text_encoder.register_forward_pre_hook(lambda m, args: seen["text"].add(len(args[0]))),
        model.unet.register_forward_pre_hook(lambda m, args: seen["unet"].add(len(args[0]))),
        model.vae.decoder.register_forward_pre_hook(lambda m, args: seen["vae"].add(len(args[0]))),
    ]
    act()
    for hook in hooks:
        hook.remove()
    return seen


def test_every_part_runs_at_one_shape_however_few_the_requests(
    renderer: Renderer, model: ImageDiffusionModel
) -> None:
    for count in (1, 3):
        batch = [replace(ONE, prompt=f"never seen before {count} {n}") for n in range(count)]
        seen = rows_seen(model, lambda batch=batch: paint(renderer, *batch))
        assert seen == {"text": {4}, "unet": {8}, "vae": {4}}


def test_stop_leaves_between_two_steps(renderer: Renderer, model: ImageDiffusionModel) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    forwards: list[int] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: forwards.append(1))
    with pytest.raises(Stopped):
        renderer.render([replace(ONE, num_inference_steps=40)], [None], stop)
    hook.remove()
    assert len(forwards) == 2
    assert paint(renderer, ONE) == paint(renderer, ONE)


def test_own_latents_mix_with_noise_in_one_batch(renderer: Renderer) -> None:
    start = np.random.default_rng(0).standard_normal((4, 16, 16), dtype=np.float32)
    start.flags.writeable = False
    plain = paint(renderer, ONE)[0]
    own = renderer.render([ONE], [start], never)[0].pixels.tobytes()
    assert own != plain
    mixed = renderer.render([ONE, ONE], [start, None], never)
    assert [picture.pixels.tobytes() for picture in mixed] == [own, plain]
    with pytest.raises(LatentsError, match=r"\(4, 4, 16, 16\)"):
        renderer.render([ONE], [start[:, :8]], never)


def test_what_is_not_finite_is_said_and_its_neighbours_are_unharmed(renderer: Renderer) -> None:
    bad = np.full((4, 16, 16), np.nan, np.float32)
    good, broken = renderer.render([OTHERS[0], ONE], [None, bad], never)
    assert (good.finite, broken.finite) == (True, False)
    assert good.pixels.tobytes() == paint(renderer, OTHERS[0])[0]
    assert broken.pixels.shape == (64, 64, 3)
    assert broken.pixels.dtype == np.uint8


def test_alone_is_one_image_in_fp32_and_the_model_comes_back_unchanged() -> None:
    model = load_model(*MODEL, "bf16", "cpu")
    renderer = DiffusionRenderer(model, rows=8)
    before = paint(renderer, ONE)
    kinds: set[torch.dtype] = set()
    hook = model.unet.register_forward_pre_hook(lambda module, args: kinds.add(args[0].dtype))
    seen = rows_seen(model, lambda: renderer.render_alone(ONE, None, never))
    hook.remove()
    assert kinds == {torch.float32}
    assert seen == {"text": {1}, "unet": {2}, "vae": {1}}
    assert paint(renderer, ONE) == before


def test_it_says_what_the_bytes_depend_on(renderer: Renderer) -> None:
    by = renderer.rendered_by
    assert (by.precision, by.rows, by.device) == ("fp32", 8, "cpu")
    assert by.versions["torch"] == torch.__version__
    assert set(by.versions) == {"torch", "diffusers", "imagemill"}


def test_halved_rows_make_smaller_batches_and_are_recorded(model: ImageDiffusionModel) -> None:
    renderer = DiffusionRenderer(model, rows=8)
    assert (renderer.batch_size(ONE), renderer.rendered_by.rows) == (4, 8)
    assert renderer.halve_rows()
    assert (renderer.batch_size(ONE), renderer.rendered_by.rows) == (2, 4)
    assert renderer.halve_rows()
    assert not renderer.halve_rows()
    assert len(paint(renderer, ONE)) == 1


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"), OutOfMemory),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), BrokenDevice),
        (RuntimeError("index out of range"), RuntimeError),
    ],
)
def test_errors_of_the_device_are_told_from_those_of_a_request(
    model: ImageDiffusionModel, monkeypatch: pytest.MonkeyPatch, raised: Exception, told: type[Exception]
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise raised

    monkeypatch.setattr(model, "get_img_latents", fail)
    with pytest.raises(told):
        paint(DiffusionRenderer(model, rows=2), ONE)
