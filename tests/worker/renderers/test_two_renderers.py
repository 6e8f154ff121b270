"""The built-in model: text alone by tables, pictures by interception, over the same modules."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from jobs.models.models import BUILT_IN
from jobs.settings import Settings
from tests.held_inputs import HeldInputs
from tests.tiny.controlnets import controlnet_of
from tests.tiny.stable_diffusion import stable_diffusion
from tests.worker.renderers.intercepted import Source, Wanted, wanted
from tests.worker.renderers.pictured import INPUTS, pictured
from tools.shapes.checker import read, shows
from tools.shapes.draw import draw
from tools.shapes.grammar import COLOURS, Scene, Thing, pairs, prompt_of, random_scene
from worker.diffusion.painters import Controlnets, Painters
from worker.engine.renderer import Bucket, Picture, Pipeline, Renderer
from worker.image_diffusion_model import ImageDiffusionModel
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.load_renderer import load_renderer
from worker.renderers.pipeline_renderer import PipelineRenderer
from worker.renderers.pipelines import image_diffusion_model, load_model
from worker.renderers.two_renderers import BY_TABLES, TwoRenderers

SHAPES = Pipeline("shapes", BUILT_IN["shapes"].revision, "fp32")
SEEN = pairs(held_out=False)
COUNT = 12
FILES: dict[str, bytes] = {}


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shapes(_one_thread_and_a_cache_of_its_own: None) -> Renderer:
    return load_renderer(SHAPES, Settings(device="cpu"))


def held(picture: Image.Image) -> str:
    """The hash of a picture's file, which is held from now on."""
    file = io.BytesIO()
    picture.save(file, "png")
    digest = sha256(file.getvalue()).hexdigest()
    FILES[digest] = file.getvalue()
    return digest


def asked(seed: int, prompt: str, **settings: Any) -> Wanted:
    own = {"num_inference_steps": 20, "guidance_scale": 3.0, "scheduler": "DDIM", "prompt": prompt}
    request = wanted(seed, **{**own, "model": "shapes", "revision": SHAPES.revision, **settings}).request
    return Wanted(request, HeldInputs(files=FILES))


def paint(renderer: Renderer, images: Sequence[Wanted], pipeline: Pipeline = SHAPES) -> list[Image.Image]:
    """The pictures, in their order, of images of one task."""
    [task] = {renderer.task(one.request) for one in images}
    found: dict[int, Image.Image] = {}
    bucket = Bucket(pipeline, 64, 64, slots=16, task=task)
    for outcomes in renderer.render(bucket, Source(renderer, images), bool):
        for one, picture in outcomes:
            assert isinstance(picture, Picture), picture
            found[one.request.seed] = Image.fromarray(picture.pixels)
    return [found[one.request.seed] for one in images]


def test_a_picture_keeps_its_layout_and_takes_the_colour_of_the_prompt(shapes: Renderer) -> None:
    """The prompt names neither place nor background: these are the picture's."""
    rng = random.Random(5)
    scenes = [random_scene("one", rng, SEEN) for _ in range(COUNT)]
    images, wishes = [], []
    for seed, scene in enumerate(scenes):
        [thing] = scene.things
        others = [one for one in COLOURS if one != thing.colour and (one, thing.shape) in SEEN]
        other = replace(thing, colour=rng.choice(others))
        wishes.append(replace(scene, things=(other,)))
        prompt = prompt_of(Scene((replace(other, place=None),), None))
        picture = held(draw(scene, random.Random(seed)))
        images.append(asked(seed, prompt, image=picture, strength=0.6))
    painted = paint(shapes, images)
    assert sum(shows(read(one), wish) for one, wish in zip(painted, wishes, strict=True)) >= 0.8 * COUNT


def test_inpainting_paints_what_is_asked_and_touches_nothing_outside_the_mask(shapes: Renderer) -> None:
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=255)
    rng, images, wishes, before = random.Random(7), [], [], []
    for seed in range(COUNT // 2):
        left = rng.choice(SEEN)
        right = rng.choice([one for one in SEEN if one[0] != left[0] and one[1] != left[1]])
        kept, new = Thing(*left, "on the left"), Thing(*right, "on the right")
        background = rng.choice(["white", "gray", "mint", "sky"])
        before.append(draw(Scene((kept,), background), random.Random(seed)))
        wishes.append(Scene((kept, new), background, "left of"))
        pictures = {"image": held(before[-1]), "mask_image": held(mask)}
        images.append(asked(seed, prompt_of(wishes[-1]), strength=1.0, **pictures))
    painted = paint(shapes, images)
    for one, original in zip(painted, before, strict=True):
        assert np.array_equal(np.asarray(one)[:, :32], np.asarray(original)[:, :32])
    assert sum(shows(read(one), wish) for one, wish in zip(painted, wishes, strict=True)) >= COUNT // 2 - 1


def test_text_alone_goes_by_tables_and_its_bytes_do_not_know_of_pictures(shapes: Renderer) -> None:
    text, picture = asked(1, "a red circle"), asked(2, "a red circle", image=held(Image.new("RGB", (64, 64))))
    assert (shapes.task(text.request), shapes.task(picture.request)) == ("", "pictures")
    assert shapes.forwards(picture.request) == 16, "of 20 steps with the class's own strength"
    before = paint(shapes, [text])[0].tobytes()
    paint(shapes, [picture])
    assert paint(shapes, [text])[0].tobytes() == before
    tables = DiffusionRenderer(_model())
    assert paint(tables, [text])[0].tobytes() == before


@cache
def _model() -> ImageDiffusionModel:
    return load_model("shapes", SHAPES.revision, "fp32", "cpu")


@pytest.mark.parametrize(("precision", "task"), [("fp16", "image"), ("amp", "control_image")])
def test_pictures_look_the_same_in_another_precision(precision: str, task: str) -> None:
    """Under both, the autoencoder is in float32 and the pipeline's calls are not."""
    pipeline = Pipeline("tiny", "1", precision)
    images = [Wanted(pictured("StableDiffusionPipeline", task, 0, scheduler="DDIM"), INPUTS)]
    [half], [whole] = (paint(_tiny(one), images, pipeline) for one in (precision, "fp32"))
    assert np.abs(np.asarray(half, int) - np.asarray(whole, int)).mean() < 8


@cache
def _tiny(precision: str) -> TwoRenderers:
    pipeline = stable_diffusion()
    model = image_diffusion_model(pipeline, precision, "cpu")
    controlnet = torch.nn.Module.to(controlnet_of(pipeline), model.precision.weights)
    tables = DiffusionRenderer(model)
    pictures = PipelineRenderer(
        pipeline,
        precision=model.precision,
        device=model.device,
        model="tiny",
        revision="1",
        adapters=tables.adapters,
        controlnets=Controlnets({"edges": controlnet}, ("1",)),
        known=BY_TABLES,
    )
    return TwoRenderers(tables, pictures)


def test_a_model_s_modules_are_shared_and_not_copied() -> None:
    pipeline = stable_diffusion()
    painters = Painters(pipeline)
    request = pictured("StableDiffusionPipeline", "image", 0, scheduler="DDIM")
    painter = painters.of(request)
    assert painter is painters.of(replace(request, seed=1))
    assert type(painter.pipeline).__name__ == "StableDiffusionImg2ImgPipeline"
    for name in ("unet", "vae", "text_encoder"):
        assert getattr(painter.pipeline, name) is getattr(pipeline, name)
