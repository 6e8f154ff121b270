"""jobs/pipelines/pipelines.json is what the installed diffusers says, and says it truly."""

from __future__ import annotations

import inspect
import json
from typing import Any

import diffusers
import pytest

from jobs.pipelines.pipeline_task import TASK_PICTURES
from jobs.pipelines.pipelines import admitted, find_painting, find_pipeline
from jobs.request import ImageRequest
from tests.tiny.from_pictures import FROM_PICTURES
from tools.pipeline_table import ADMITTED, REFUSED
from tools.pipelines import FILE, written
from tools.task_table import FOR_TASKS, LEFT_OUT


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return read


def test_the_file_is_as_it_is_generated_today() -> None:
    assert FILE.read_text("utf-8") == written(), "run python tools/pipelines.py"


def test_every_class_that_diffusers_exports_is_admitted_or_refused_with_a_reason(
    table: dict[str, Any],
) -> None:
    exported = {name for name in dir(diffusers) if name.endswith("Pipeline")} - {"DiffusionPipeline"}
    assert table["admitted"].keys() | table["refused"].keys() == exported
    assert table["admitted"].keys() & table["refused"].keys() == set()
    assert all(why for why in table["refused"].values())
    assert table["diffusers"] == diffusers.__version__


def test_every_text_to_image_class_of_diffusers_is_admitted_or_refused_by_hand(table: dict[str, Any]) -> None:
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    named = {one.__name__ for one in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}
    for name in named - ADMITTED.keys() - FOR_TASKS.keys():
        why = table["refused"][name]
        assert name in REFUSED or any(word in why for word in ("picture to begin", "videos")), name


@pytest.mark.parametrize(
    ("name", "schedulers"),
    [
        ("FluxPipeline", ["default", "Flow Euler", "Flow UniPC"]),
        ("StableDiffusion3Pipeline", ["default", "Flow Euler", "Flow Heun", "Flow UniPC", "Flow DPM++ 2M"]),
        ("CogView4Pipeline", ["default", "Flow Euler"]),
        ("HiDreamImagePipeline", ["default"]),
    ],
)
def test_flow_pipelines_take_the_samplers_that_bear_their_call(
    table: dict[str, Any], name: str, schedulers: list[str]
) -> None:
    assert table["admitted"][name]["schedulers"] == schedulers


def test_arguments_have_types_and_defaults_and_no_objects(table: dict[str, Any]) -> None:
    flux = table["admitted"]["FluxPipeline"]["arguments"]
    assert flux["true_cfg_scale"] == {"type": "number", "default": 1.0}
    assert flux["negative_prompt_2"] == {"type": "text", "null": True, "default": None}
    xl = table["admitted"]["StableDiffusionXLPipeline"]["arguments"]
    assert xl["original_size"] == {"type": "pair of whole numbers", "null": True, "default": None}
    names = {name for entry in table["admitted"].values() for name in entry["arguments"]}
    assert {"clip_skip", "eta", "guidance_rescale", "max_sequence_length", "prompt_2", "sigmas"} <= names
    objects = ("embeds", "image", "callback", "latents", "mask", "kwargs", "generator", "output_type")
    found = {name for name in names if any(word in name for word in objects)}
    assert found == {"image_guidance_scale"}


def test_every_task_that_diffusers_has_for_a_class_is_painted_or_left_out_with_a_reason(
    table: dict[str, Any],
) -> None:
    from diffusers.pipelines.auto_pipeline import (
        AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        AUTO_INPAINT_PIPELINES_MAPPING,
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    )

    painted = {name for entry in table["admitted"].values() for name in entry["tasks"].values()}
    assert painted == table["admitted"].keys() | table["for_tasks"].keys()
    assert all(LEFT_OUT.values())
    for key, text_alone in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items():
        for mapping in (AUTO_IMAGE2IMAGE_PIPELINES_MAPPING, AUTO_INPAINT_PIPELINES_MAPPING):
            if text_alone.__name__ in ADMITTED and key in mapping:
                assert mapping[key].__name__ in painted | LEFT_OUT.keys()


@pytest.mark.parametrize("name", admitted())
def test_the_calls_of_a_classs_tasks_take_what_they_are_given(name: str) -> None:
    pipeline = find_pipeline(name)
    for key in pipeline.tasks:
        painting = find_painting(pipeline.tasks[key])
        own = {"strength": 0.5, "controlnet": '[{"name":"c","revision":"r","scale":1.0}]'}
        pictures = [picture for picture in TASK_PICTURES if picture in key.split("+")]
        request = ImageRequest(
            prompt="a", seed=1, model="m", revision="r", **own, **dict.fromkeys(pictures, "0" * 64)
        )
        given = {painting.pictures[picture]: picture for picture in pictures}
        call = getattr(diffusers, painting.name).__call__
        inspect.signature(call).bind(None, **painting.call_arguments(request), **given)
        assert given.keys().isdisjoint(painting.call_arguments(request))


def test_models_that_paint_from_pictures_alone_are_those_that_tests_build(table: dict[str, Any]) -> None:
    assert {name for name, entry in table["admitted"].items() if "" not in entry["tasks"]} == {*FROM_PICTURES}


@pytest.mark.parametrize(
    ("name", "pictures", "sized", "strength", "scale"),
    [
        ("StableDiffusionControlNetPipeline", {"control_image": "image"}, True, None, 1.0),
        ("StableDiffusionImg2ImgPipeline", {"image": "image"}, False, (0.8, "whole"), None),
        ("FluxInpaintPipeline", {"image": "image", "mask_image": "mask_image"}, True, (0.6, "begun"), None),
        (
            "StableDiffusion3ControlNetInpaintingPipeline",
            {"mask_image": "control_mask", "control_image": "control_image"},
            True,
            None,
            1.0,
        ),
    ],
)
def test_a_class_says_how_its_call_names_pictures_and_takes_size_and_strength(
    name: str,
    pictures: dict[str, str],
    sized: bool,
    strength: tuple[float, str] | None,
    scale: float | None,
) -> None:
    painting = find_painting(name)
    assert (painting.pictures, painting.sized, painting.conditioning_scale) == (pictures, sized, scale)
    found = None if painting.strength is None else (painting.strength.default, painting.strength.steps)
    assert found == strength


def test_samplers_that_can_add_no_noise_to_a_picture_are_not_taken_for_it(table: dict[str, Any]) -> None:
    image = table["for_tasks"]["StableDiffusion3Img2ImgPipeline"]["schedulers"]
    assert image == ["default", "Flow Euler", "Flow Heun"]
