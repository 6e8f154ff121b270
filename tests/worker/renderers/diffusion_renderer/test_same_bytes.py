"""Requests in, pictures out, among any others: each picture's bytes follow from its request alone."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worker.renderers.diffusion_renderer.wanted import (
    MIX,
    MODEL,
    SMALL,
    latents_of,
    paint,
    render,
    slots_seen,
    wanted,
)
from worker.engine.renderer import Picture
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipelines import load_model


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 5, 1, 4]], ids=str
)
def test_a_picture_is_the_same_alone_and_among_others_in_any_order(
    renderer: DiffusionRenderer, alone: dict[int, bytes], order: list[int]
) -> None:
    assert paint(renderer, [MIX[number] for number in order]) == alone


def test_a_picture_is_the_same_whenever_it_enters(
    renderer: DiffusionRenderer, alone: dict[int, bytes]
) -> None:
    assert paint(renderer, *([one] for one in MIX)) == alone
    others = [wanted(100 + number, guidance_scale=1.0 + number % 2) for number in range(20)]
    found = paint(renderer, others, [MIX[2]], MIX[:2], MIX[3:])
    assert {seed: found[seed] for seed in alone} == alone


def test_half_precision_keeps_that_promise_too() -> None:
    renderer = DiffusionRenderer(load_model(*MODEL, "bf16", "cpu"))
    assert renderer.precision == "bf16"
    together = paint(renderer, MIX[::-1], bucket=SMALL)
    for one in (MIX[0], MIX[4]):
        assert paint(renderer, [one], bucket=SMALL) == {one.request.seed: together[one.request.seed]}


def test_pictures_are_those_of_prompt_to_img(renderer: DiffusionRenderer, model: ImageDiffusionModel) -> None:
    mix = [replace(one, request=replace(one.request, num_inference_steps=3)) for one in MIX]
    requests = [one.request for one in mix]
    expected = model.prompt_to_img(
        [request.prompt for request in requests],
        32,
        32,
        3,
        [request.guidance_scale for request in requests],
        [latents_of(one) for one in mix],
        negative_prompts=[request.negative_prompt for request in requests],
        seeds=[request.seed for request in requests],
        scheduler=[request.scheduler for request in requests],
        batch_size=16,
        progress=False,
    )
    found = render(renderer, mix)
    for request, picture in zip(requests, expected, strict=True):
        ours = found[request.seed]
        assert isinstance(ours, Picture)
        # The text encoder and the VAE run in batches of another size there.
        assert np.abs(ours.pixels.astype(int) - np.asarray(picture, dtype=int)).max() <= 1


def test_alone_is_one_image_in_fp32_and_the_model_comes_back_unchanged() -> None:
    model = load_model(*MODEL, "bf16", "cpu")
    renderer = DiffusionRenderer(model)
    one = MIX[3]
    before = paint(renderer, [one], bucket=SMALL)
    kinds: set[torch.dtype] = set()
    pictures: list[Picture] = []
    hook = model.unet.register_forward_pre_hook(lambda module, args: kinds.add(args[0].dtype))
    seen = slots_seen(model, lambda: pictures.append(renderer.render_alone(one.request, one.inputs, bool)))
    hook.remove()
    assert kinds == {torch.float32}
    assert {part: set(slots) for part, slots in seen.items()} == {"text": {2}, "unet": {2}, "vae": {1}}
    assert paint(renderer, [one], bucket=SMALL) == before
    in_half = np.frombuffer(before[3], np.uint8).astype(int)
    assert 0 < np.abs(pictures[0].pixels.flatten() - in_half).mean() < 3


def test_it_says_what_the_bytes_depend_on(
    renderer: DiffusionRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line for line in found if line.startswith("model name")).split(": ")[1].split(" @")[0]
    kind = f"cpu {name} {torch.backends.cpu.get_cpu_capability()}"
    assert (renderer.precision, renderer.device) == ("fp32", f"{kind}, 1 thread")
    assert renderer.versions == {
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "transformers": version("transformers"),
        "pillow": version("pillow"),
        "imagemill": version("imagemill"),
    }
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    torch.set_num_threads(2)
    both = DiffusionRenderer(load_model(*MODEL, "fp32", "cpu", channels_last=True)).device
    torch.set_num_threads(1)
    assert both == f"{kind}, oneDNN AVX2, 2 threads, channels last"
