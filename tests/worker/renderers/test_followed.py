"""Images that follow a picture by an IP-Adapter: diffusers' own, and the same bytes beside any others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jobs.adapters import IP_ADAPTERS, NO_ADAPTERS
from jobs.errors import ImagemillError, RenderError
from jobs.inputs.input_picture import read_whole_picture
from jobs.request import ImageRequest
from tests.held_inputs import HeldInputs
from tests.ip_adapter_files import image_encoder, save_image_encoder, save_ip_adapter
from tests.random_loras import loras, random_lora
from tests.worker.renderers.intercepted import CPU, Wanted, outcomes, pixels_of
from tests.worker.renderers.pictured import INPUTS, OTHER, PHOTO, Model, by_diffusers, pictured
from worker.diffusion.adapters import AdapterSwitch
from worker.diffusion.ip_adapter import ImageEncoder
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Picture, Pipeline, Renderer
from worker.renderers.device import kind_of_device, versions
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.image_encoders import processor_of
from worker.renderers.learned_tasks import LearnedTasks
from worker.renderers.learning import Learned
from worker.renderers.pipeline_renderer import PipelineRenderer
from worker.renderers.pipelines import image_diffusion_model
from worker.renderers.two_renderers import BY_TABLES, TwoRenderers

SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
TASKS = {SD: ("", "image+mask_image"), XL: ("image", "control_image")}
MOST_DIFFERENCE = 1e-5
SIDE = 32


class Remembering(Model):
    """A model that learns how images share forwards from what a worker of this user has learned."""

    def learned(self, request: ImageRequest) -> Learned:
        here = {"device": kind_of_device(CPU), "versions": versions()}
        known = {"revision": self.family, "precision": "fp32", **here}
        tasks = LearnedTasks(
            self.painters, known, model="tiny", computing=nullcontext, uncompiled=nullcontext
        )
        return tasks.of(request, "exact")[1]


@dataclass(frozen=True, slots=True)
class Place:
    """A tiny model with an image encoder, and the files of an IP-Adapter and a LoRA."""

    model: Model
    folder: Path
    renderer: Renderer
    switch: AdapterSwitch
    inputs: HeldInputs
    adapter: str
    """The IP-Adapter as requests say it."""
    lora: str

    def request(self, task: str, seed: int, scale: float | None = None, **settings: Any) -> ImageRequest:
        """A request of a task; with a scale it follows a picture."""
        own: dict[str, Any] = {"height": SIDE, "width": SIDE}
        if self.model.family == SD:
            own["scheduler"] = "DDIM"
        if scale is not None:
            own["ip_adapter"], own["ip_adapter_scale"] = self.adapter, scale
            own["ip_adapter_image"] = (OTHER, PHOTO)[seed % 2]
        return pictured(self.model.family, task, seed, **{**own, **settings})

    @property
    def mix(self) -> list[ImageRequest]:
        """Tasks with a picture to follow and without, at two scales, and with a LoRA."""
        each = [
            self.request(task, 2 * number + odd, (1.0, 0.4)[odd])
            for number, task in enumerate(TASKS[self.model.family])
            for odd in (0, 1)
        ]
        given = loras((self.lora, 0.8))
        return [
            *each,
            self.request("", 30),
            self.request("image", 31),
            self.request("", 32, 1.0, loras=given),
        ]

    def outcomes(self, requests: Sequence[ImageRequest]) -> dict[int, Picture | ImagemillError]:
        """What comes of images by their seeds; they go into a bucket for each task and set of adapters."""
        pipeline = Pipeline("tiny", "1", "fp32")

        def bucket_of(one: ImageRequest) -> Bucket:
            return Bucket(pipeline, SIDE, SIDE, slots=8, task=self.renderer.task(one), adapters=one.adapters)

        return outcomes(self.renderer, bucket_of, [Wanted(one, self.inputs) for one in requests])

    def paint(self, requests: Sequence[ImageRequest]) -> dict[int, bytes]:
        """The pictures' bytes."""
        return pixels_of(self.outcomes(requests))


def new_renderer(model: Model, encoder: ImageEncoder | None) -> tuple[Renderer, AdapterSwitch]:
    switch = AdapterSwitch(model.pipeline, image_encoder=encoder)
    known: dict[str, Any] = {"known": BY_TABLES} if model.family == SD else {}
    pictures = PipelineRenderer(
        model.pipeline,
        precision=resolve_precision("fp32", CPU),
        device=CPU,
        model="tiny",
        revision=model.family,
        adapters=switch,
        controlnets=model.controlnets,
        **known,
    )
    if model.family != SD:
        return pictures, switch
    tables = DiffusionRenderer(image_diffusion_model(model.pipeline, "fp32", "cpu"), switch)
    return TwoRenderers(tables, pictures), switch


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[SD, XL])
def place(
    request: pytest.FixtureRequest,
    _one_thread_and_a_cache_of_its_own: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    folder, model = tmp_path_factory.mktemp("files"), Remembering(request.param, controlled=True)
    save_image_encoder(folder / "image_encoder")
    file = save_ip_adapter(folder / "ip.safetensors", model.pipeline.unet)
    lora = folder / "lora.safetensors"
    save_file(random_lora(model.pipeline.unet, "unet"), lora)
    hashes = {hashlib.sha256(one.read_bytes()).hexdigest(): one for one in (file, lora)}
    adapter, of_lora = hashes
    module = image_encoder()
    renderer, switch = new_renderer(model, ImageEncoder(module, processor_of(module), "1"))
    named = {"name": "ip", "sha256": adapter, "image_encoder": "encoder", "revision": "1"}
    text = IP_ADAPTERS.plain([named])
    assert text is not None
    inputs = HeldInputs(files=INPUTS.files, paths=hashes)
    return Place(model, folder, renderer, switch, inputs, text, of_lora)


def test_pictures_are_those_of_diffusers_own_call(place: Place) -> None:
    """Together in forwards of eight slots."""
    requests = [one for one in place.mix if one.ip_adapter_image is not None and one.loras == "[]"]

    def followed(pipeline: Any, one: ImageRequest) -> Mapping[str, Any]:
        pipeline.load_ip_adapter(str(place.folder), subfolder="", weight_name="ip.safetensors")
        pipeline.set_ip_adapter_scale(one.ip_adapter_scale)
        assert one.ip_adapter_image is not None
        return {"ip_adapter_image": read_whole_picture(INPUTS.contents(one.ip_adapter_image))}

    values: dict[int, np.ndarray] = {}
    for adapters in dict.fromkeys(one.adapters for one in requests):
        with place.switch.carrying(adapters, place.inputs):
            together = [one for one in requests if one.adapters == adapters]
            values |= place.model.paint(together, inputs=place.inputs)[0]
    for one in requests:
        theirs = by_diffusers(place.model, one, lambda pipeline, one=one: followed(pipeline, one))
        assert np.abs(values[one.seed] - theirs).max() <= MOST_DIFFERENCE, one


def test_bytes_are_equal_alone_mixed_and_in_another_order(place: Place) -> None:
    mix = place.mix
    together = place.paint(mix)
    assert len(set(together.values())) == len(mix)
    assert place.paint(mix[::-1]) == together
    for one in mix[::2]:
        assert place.paint([one]) == {one.seed: together[one.seed]}


def test_images_that_follow_none_keep_the_bytes_of_a_model_that_never_saw_one(place: Place) -> None:
    plain = [place.request("", 30), place.request("image", 31)]
    place.paint([place.request("", 0, 1.0)])
    assert place.switch.on != NO_ADAPTERS
    slots = place.renderer.measure_slots(SIDE, SIDE)
    assert slots > 0 and place.switch.on != NO_ADAPTERS, "measured without it, and it is back"
    fresh, switch = new_renderer(Model(place.model.family, controlled=True), None)
    assert place.paint(plain) == replace(place, renderer=fresh, switch=switch).paint(plain)


def test_an_image_alone_follows_its_picture_too(place: Place) -> None:
    first, second = place.request("", 0, 1.0), place.request("", 1, 0.4)
    expected = place.paint([first, second])
    place.paint([first])
    alone = place.renderer.render_alone(second, place.inputs, lambda: False)
    assert place.switch.on == first.adapters
    difference = np.frombuffer(expected[1], np.uint8).astype(int) - alone.pixels.reshape(-1)
    assert np.abs(difference).max() <= 1
    assert place.paint([first])[0] == expected[0]


def test_without_the_image_encoder_its_images_fail_and_the_others_are_painted(place: Place) -> None:
    model = Model(place.model.family, controlled=True)
    renderer, switch = new_renderer(model, None)
    without = replace(place, model=model, renderer=renderer, switch=switch)
    found = without.outcomes([place.request("", 0, 1.0), place.request("", 30)])
    assert isinstance(found[0], RenderError) and "what is loaded is none" in str(found[0])
    assert isinstance(found[30], Picture)
