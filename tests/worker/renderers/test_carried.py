"""Images with LoRAs among others: each picture's bytes follow from its request alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file

from jobs.adapters import NO_ADAPTERS
from jobs.errors import ImagemillError, InputError, RenderError
from jobs.request import ImageRequest
from tests.random_loras import LoraFolder, loras, random_lora
from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import Wanted, outcomes, pixels_of
from worker.diffusion.adapters import AdapterSwitch
from worker.diffusion.build_scheduler import build_scheduler
from worker.diffusion.painter import Painter
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Picture, Pipeline
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.learning import learn_and_prove, sample_of
from worker.renderers.paint_together import paint_together
from worker.renderers.pipeline_renderer import PipelineRenderer
from worker.renderers.pipelines import image_diffusion_model

CPU = torch.device("cpu")
BUCKET = Bucket(Pipeline("tiny", "1", "fp32"), 32, 32, slots=8)
AnyRenderer = DiffusionRenderer | PipelineRenderer


@dataclass(frozen=True, slots=True)
class Place:
    """A renderer, and the folder of its images' files."""

    family: str
    renderer: AnyRenderer
    folder: LoraFolder
    first: str
    """A LoRA of the denoiser."""
    second: str
    """One of the denoiser and of a text encoder."""

    def wanted(self, seed: int, *given: tuple[str, float], **settings: Any) -> Wanted:
        asked = {
            "prompt": f"a star {seed}",
            "seed": seed,
            "height": 32,
            "width": 32,
            "num_inference_steps": 2,
            "guidance_scale": 4.0,
            "scheduler": "DDIM" if self.family == "StableDiffusionPipeline" else "default",
            "model": "tiny",
            "revision": "1",
            "loras": loras(*given),
            **settings,
        }
        return Wanted(ImageRequest(**asked), self.folder.inputs)

    def outcomes(self, images: Sequence[Wanted]) -> dict[int, Picture | ImagemillError]:
        """What comes of images, which go into a bucket for each set of adapters."""
        return outcomes(self.renderer, lambda one: replace(BUCKET, adapters=one.adapters), images)

    def paint(self, images: Sequence[Wanted]) -> dict[int, bytes]:
        return pixels_of(self.outcomes(images))

    @property
    def mix(self) -> list[Wanted]:
        """Images without LoRAs, and with one or two of them, that follow on each other."""
        both = (self.first, 0.5), (self.second, 0.9)
        return [
            self.wanted(0),
            self.wanted(1, (self.first, 0.8), num_inference_steps=3),
            self.wanted(2, (self.second, 1.0), guidance_scale=1.0),
            self.wanted(3, *both),
            self.wanted(4),
            self.wanted(5, (self.first, 0.8), negative_prompt="blurry"),
            self.wanted(6, (self.first, 0.4)),
            self.wanted(7, *both, num_inference_steps=4),
        ]


def new_renderer(family: str, precision: str = "fp32", *, compiled: bool = False) -> AnyRenderer:
    pipeline = FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    if isinstance(pipeline, StableDiffusionPipeline):
        return DiffusionRenderer(image_diffusion_model(pipeline, precision, "cpu", compiled=compiled))
    if precision == "bf16":
        pipeline.to(torch.bfloat16)
    chosen = resolve_precision(precision, CPU)
    return PipelineRenderer(pipeline, precision=chosen, device=CPU, model="tiny", revision=family + precision)


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def new_place(
    _one_thread_and_a_cache_of_its_own: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Place]:
    folder = LoraFolder(tmp_path_factory.mktemp("inputs"))

    def new(family: str, **how: Any) -> Place:
        parts = FAMILIES[family].build()
        name = "unet" if hasattr(parts, "unet") else "transformer"
        of_texts = random_lora(parts.text_encoder, "text_encoder", lambda name: name.endswith("_proj"))
        return Place(
            family,
            new_renderer(family, **how),
            folder,
            folder.keep(random_lora(getattr(parts, name), name, seed=1)),
            folder.keep(random_lora(getattr(parts, name), name, seed=2, rank=8) | of_texts),
        )

    return new


@pytest.fixture(
    scope="module", params=["StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline"]
)
def place(request: pytest.FixtureRequest, new_place: Callable[..., Place]) -> Place:
    return new_place(request.param)


def test_bytes_are_equal_alone_mixed_and_in_another_order(place: Place) -> None:
    mix = place.mix
    alone = {seed: picture for one in mix for seed, picture in place.paint([one]).items()}
    assert len(set(alone.values())) == len(mix)
    assert place.paint(mix) == alone
    assert place.paint(mix[::-1]) == alone


def test_images_without_loras_keep_the_bytes_of_a_model_that_never_saw_one(
    place: Place,
) -> None:
    mix = place.mix
    place.paint(mix)
    plain = [one for one in mix if one.request.adapters == NO_ADAPTERS]
    assert place.paint(plain) == replace(place, renderer=new_renderer(place.family)).paint(plain)


def test_a_switch_happens_once_a_bucket(place: Place) -> None:
    place.paint([place.wanted(0)])
    before = place.renderer.adapters.switches
    place.paint([place.wanted(seed, (place.first, 0.8)) for seed in range(6)])
    place.paint([place.wanted(seed, (place.first, 0.8)) for seed in range(6, 9)])
    assert place.renderer.adapters.switches == before + 1


def test_a_lora_that_does_not_fit_fails_its_images_alone(place: Place) -> None:
    calm = place.paint(place.mix)
    wrong = place.folder.keep({"unet.conv_in.lora_A.weight": torch.zeros(4, 4)})
    for bad in (wrong, "8" * 64):
        images = [place.wanted(20, (bad, 1.0)), *place.mix, place.wanted(21, (bad, 1.0))]
        found = place.outcomes(images)
        for seed in (20, 21):
            assert isinstance(error := found.pop(seed), RenderError | InputError)
            assert bad[:4] in str(error)
        assert {seed: one.pixels.tobytes() for seed, one in found.items()} == calm  # type: ignore[union-attr]


def test_a_file_that_one_image_does_not_find_is_found_where_the_next_one_has_it(
    place: Place, tmp_path: Any
) -> None:
    nowhere = replace(place, folder=LoraFolder(tmp_path))
    # Of other bytes, so that it is not loaded yet.
    given = (place.folder.keep(load_file(place.folder.path(place.first)), {"note": "copied"}), 0.6)
    found = place.outcomes([nowhere.wanted(1, given), place.wanted(2, given)])
    assert isinstance(found[1], InputError)
    assert isinstance(found[2], Picture)


def test_an_image_alone_carries_its_loras_and_those_of_the_slots_come_back(place: Place) -> None:
    first, second = place.wanted(1, (place.first, 0.8)), place.wanted(2, (place.second, 0.9))
    expected = place.paint([first, second])
    switches = place.renderer.adapters
    place.paint([first])
    alone = place.renderer.render_alone(second.request, second.inputs, lambda: False)
    assert switches.on == first.request.adapters
    among = np.frombuffer(expected[2], np.uint8).reshape(alone.pixels.shape)
    assert np.abs(alone.pixels.astype(int) - among).max() <= 1
    assert place.paint([first]) == {1: expected[1]}


def test_tables_paint_what_diffusers_own_call_does(new_place: Callable[..., Place]) -> None:
    place = new_place("StableDiffusionPipeline")
    model = image_diffusion_model(FAMILIES["StableDiffusionPipeline"].build(), "fp32", "cpu")
    image = place.wanted(1, (place.second, 0.9))
    DiffusionRenderer(model).adapters.switch(image.request.adapters, image.inputs)
    latents = model.get_img_latents(
        model.get_prompt_embeds(["a star"], ["blurry"]), 32, 32, 3, 4.0, seeds=[5], scheduler="DDIM"
    )
    reference = with_lora(FAMILIES["StableDiffusionPipeline"].build(), place.folder.path(place.second), 0.9)
    reference.scheduler = build_scheduler("DDIM", reference.scheduler.config)
    given = {"height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 4.0}
    own = reference(
        "a star",
        negative_prompt="blurry",
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        **given,
    ).images
    assert (latents - own).abs().max() <= 1e-5 * own.abs().max()


@pytest.mark.parametrize("family", ["StableDiffusionXLPipeline", "FluxPipeline"])
def test_rules_that_were_learned_without_loras_hold_with_them(
    family: str, new_place: Callable[..., Place]
) -> None:
    place, pipeline = new_place(family), FAMILIES[family].build()
    painter = Painter(pipeline)
    learned = learn_and_prove(painter, sample_of(painter))
    image = place.wanted(1, (place.second, 0.9))
    AdapterSwitch(pipeline).switch(image.request.adapters, image.inputs)
    assert learn_and_prove(painter, sample_of(painter)) == learned
    requests = [
        replace(image.request, seed=seed, num_inference_steps=1 + seed, prompt=f"{seed} stars")
        for seed in (1, 2, 3)
    ]
    reference = Painter(with_lora(FAMILIES[family].build(), place.folder.path(place.second), 0.9))
    mixed, _forwards = paint_together(painter, learned.rules, requests)
    for request, picture in zip(requests, mixed, strict=True):
        [alone] = paint_together(painter, learned.rules, [request])[0]
        assert np.array_equal(alone.values, picture.values)
        with torch.no_grad():
            assert np.abs(reference.paint(request).values - picture.values).max() <= 1e-5


def with_lora(pipeline: DiffusionPipeline, file: Path, scale: float) -> DiffusionPipeline:
    """The pipeline with a LoRA as diffusers itself loads it."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(file), adapter_name="own", use_safetensors=True)
    pipeline.set_adapters(["own"], [scale])
    return pipeline


def test_two_renderers_over_the_same_modules_carry_the_same(new_place: Callable[..., Place]) -> None:
    apart = new_place("StableDiffusionPipeline")
    pipeline = FAMILIES["StableDiffusionPipeline"].build()
    model = image_diffusion_model(pipeline, "fp32", "cpu")
    tables = replace(apart, renderer=DiffusionRenderer(model))
    calls = replace(
        apart,
        renderer=PipelineRenderer(
            pipeline,
            precision=model.precision,
            device=CPU,
            model="tiny",
            revision="two",
            adapters=tables.renderer.adapters,
        ),
    )
    images = [apart.wanted(1, (apart.second, 0.9)), apart.wanted(2), apart.wanted(3, (apart.first, 1.0))]
    expected = apart.paint(images)
    called = calls.paint(images)
    for one, other in zip(images[::-1], images, strict=True):
        seed = one.request.seed
        assert tables.paint([one])[seed] == expected[seed]
        assert calls.paint([other])[other.request.seed] == called[other.request.seed]
        assert tables.paint([one])[seed] == expected[seed]


@pytest.mark.parametrize("family", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_half_precision_comes_back_after_an_image_alone(family: str, new_place: Callable[..., Place]) -> None:
    place = new_place(family, precision="bf16")
    image = place.wanted(1, (place.second, 0.8))
    before = place.paint([image, place.wanted(2)])
    place.renderer.render_alone(image.request, image.inputs, lambda: False)
    assert place.paint([image, place.wanted(2)]) == before
    fresh = replace(place, renderer=new_renderer(family, "bf16"))
    fresh.renderer.render_alone(image.request, image.inputs, lambda: False)
    assert fresh.paint([image, place.wanted(2)]) == before


def test_a_worker_that_compiles_says_that_it_takes_no_loras(new_place: Callable[..., Place]) -> None:
    place = new_place("StableDiffusionPipeline", compiled=True)
    [error] = place.outcomes([place.wanted(1, (place.first, 1.0))]).values()
    assert isinstance(error, RenderError)
    assert "set IMAGEMILL_TORCH_COMPILE=0 for the workers of such images" in str(error)
