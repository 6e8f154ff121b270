"""jobs/pipelines.json is what the installed diffusers says, and says it truly."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest

from tools.pipeline_table import ADMITTED, REFUSED
from tools.pipelines import FILE, written
from tools.task_table import FOR_TASKS


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
