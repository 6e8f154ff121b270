"""Images with textual inversions among others: each picture's bytes follow from its request alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from jobs.errors import ImagemillError, InputError, RenderError
from jobs.request import ImageRequest
from tests.embedding_files import FolderInputs, embedding, listed, vectors
from tests.random_loras import LoraFolder, loras, random_lora
from tests.tiny.families import FAMILIES
from tests.worker.renderers.intercepted import Wanted, outcomes, pixels_of
from worker.diffusion.precision import resolve_precision
from worker.engine.renderer import Bucket, Picture, Pipeline
from worker.renderers.diffusion_renderer import DiffusionRenderer
from worker.renderers.pipeline_renderer import PipelineRenderer
from worker.renderers.pipelines import image_diffusion_model

CPU = torch.device("cpu")
BUCKET = Bucket(Pipeline("tiny", "1", "fp32"), 32, 32, slots=8)
AnyRenderer = DiffusionRenderer | PipelineRenderer


@dataclass(frozen=True, slots=True)
class Place:
    """A renderer, the folder of its images' files, and two embeddings and a LoRA of both text encoders."""

    family: str
    renderer: AnyRenderer
    inputs: FolderInputs
    cat: tuple[str, str]
    bad: tuple[str, str]
    lora: str

    def wanted(self, seed: int, *given: tuple[str, str], **settings: Any) -> Wanted:
        asked = {
            "prompt": f"a {' '.join(token for token, _sha256 in given)} {seed}",
            "seed": seed,
            "height": 32,
            "width": 32,
            "num_inference_steps": 1,
            "guidance_scale": 4.0,
            "scheduler": "DDIM",
            "model": "tiny",
            "revision": "1",
            "textual_inversions": listed(*given),
            **settings,
        }
        return Wanted(ImageRequest(**asked), self.inputs)

    @property
    def mix(self) -> list[Wanted]:
        return [
            self.wanted(0),
            self.wanted(1, self.cat, num_inference_steps=2),
            self.wanted(2, self.cat, guidance_scale=1.0),
            self.wanted(3, self.bad, self.cat),
            self.wanted(4, prompt="a <cat> that is none"),
            self.wanted(5, self.bad, prompt="a", negative_prompt="blurry <bad>"),
            self.wanted(6, self.cat, syntax="a1111", prompt="a (<cat>:1.3)"),
            self.wanted(7, self.cat, loras=loras((self.lora, 0.8))),
            self.wanted(8, loras=loras((self.lora, 0.8))),
            self.wanted(9, self.cat, long_prompts="chunk", prompt=" ".join(["a"] * 74) + " <cat>"),
        ]

    def outcomes(self, images: Sequence[Wanted]) -> dict[int, Picture | ImagemillError]:
        """What comes of images, which go into a bucket for each set of adapters."""
        return outcomes(self.renderer, lambda one: replace(BUCKET, adapters=one.adapters), images)

    def paint(self, images: Sequence[Wanted]) -> dict[int, bytes]:
        return pixels_of(self.outcomes(images))


def built(family: str) -> Any:
    pipeline = FAMILIES[family].build()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def new_renderer(family: str) -> AnyRenderer:
    pipeline = built(family)
    if isinstance(pipeline, StableDiffusionPipeline):
        return DiffusionRenderer(image_diffusion_model(pipeline, "fp32", "cpu"))
    chosen = resolve_precision("fp32", CPU)
    return PipelineRenderer(pipeline, precision=chosen, device=CPU, model="tiny", revision=family)


@pytest.fixture(autouse=True, scope="module")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


def of_width(pipeline: Any, count: int, seed: int) -> dict[str, torch.Tensor]:
    """A file's tensors for a pipeline's text encoders."""
    if not hasattr(pipeline, "text_encoder_2"):
        return {"emb_params": vectors(count, pipeline.text_encoder.config.hidden_size, seed)}
    return {
        "clip_l": vectors(count, pipeline.text_encoder.config.hidden_size, seed),
        "clip_g": vectors(count, pipeline.text_encoder_2.config.hidden_size, seed + 1),
    }


@pytest.fixture(scope="module", params=["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def place(
    request: pytest.FixtureRequest,
    _one_thread_and_a_cache_of_its_own: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    inputs, parts = FolderInputs(tmp_path_factory.mktemp("inputs")), built(request.param)
    cat = inputs.add(embedding(**of_width(parts, 3, 1)))
    bad = inputs.add(embedding(**of_width(parts, 1, 5)))
    folder = LoraFolder(tmp_path_factory.mktemp("loras"))
    of_texts = random_lora(parts.text_encoder, "text_encoder", lambda name: name.endswith("_proj"))
    lora = folder.keep(random_lora(parts.unet, "unet") | of_texts)
    inputs.files[lora] = folder.path(lora)
    return Place(request.param, new_renderer(request.param), inputs, ("<cat>", cat), ("<bad>", bad), lora)


def test_bytes_are_equal_alone_mixed_and_in_another_order(place: Place) -> None:
    mix = place.mix
    alone = {seed: picture for one in mix for seed, picture in place.paint([one]).items()}
    assert len(set(alone.values())) == len(mix)
    assert place.paint(mix) == alone
    assert place.paint(mix[::-1]) == alone


def test_other_images_keep_the_bytes_of_a_model_that_never_saw_an_embedding(place: Place) -> None:
    place.paint(place.mix)
    plain = [one for one in place.mix if one.request.textual_inversions == "[]"]
    assert place.paint(plain) == replace(place, renderer=new_renderer(place.family)).paint(plain)


def test_what_does_not_fit_fails_its_images_alone(place: Place) -> None:
    few = place.mix[:4]
    calm = place.paint(few)
    wrong = place.inputs.add(embedding(a=vectors(1, 7)))
    for sha256, kind in ((wrong, RenderError), ("8" * 64, InputError)):
        images = [place.wanted(20, ("<x>", sha256)), *few, place.wanted(21, ("<x>", sha256))]
        found = place.outcomes(images)
        assert isinstance(found.pop(20), kind) and isinstance(found.pop(21), kind)
        assert {seed: one.pixels.tobytes() for seed, one in found.items()} == calm  # type: ignore[union-attr]


def test_an_image_alone_knows_its_embeddings_and_those_of_the_slots_come_back(place: Place) -> None:
    first, second = place.wanted(1, place.cat), place.wanted(2, place.bad, place.cat)
    expected = place.paint([first, second])
    place.paint([first])
    alone = place.renderer.render_alone(second.request, second.inputs, lambda: False)
    assert place.renderer.adapters.on == first.request.adapters
    among = np.frombuffer(expected[2], np.uint8).reshape(alone.pixels.shape)
    assert np.abs(alone.pixels.astype(int) - among).max() <= 1
    assert place.paint([first]) == {1: expected[1]}


def test_what_is_left_out_is_told_by_the_embeddings_that_are_known(place: Place) -> None:
    text = " ".join(["a"] * 74) + " <cat> b"
    found = place.outcomes([place.wanted(1, place.cat, prompt=text), place.wanted(2, prompt=text)])
    cuts = {seed: one.prompt_cut for seed, one in found.items() if isinstance(one, Picture)}
    assert cuts[1] is not None and "<cat>" in cuts[1]
    assert cuts[2] is not None and "<cat>" not in cuts[2]
