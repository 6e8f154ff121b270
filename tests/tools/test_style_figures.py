from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from tools.shapes.score import score
from tools.shapes.style_figures import FIGURES, figures_of, paint_at, scenes_to_paint, sheet_of

LORAS: Final = Path(str(resources.files("jobs.examples"))) / "loras"
SHAPES: Final = Path(__file__).resolve().parents[2] / "worker" / "models" / "shapes"
SCENES: Final = scenes_to_paint(8)
STYLES: Final = sorted(path.stem for path in LORAS.glob("*.safetensors"))


@pytest.fixture(scope="module")
def pipeline() -> Iterator[StableDiffusionPipeline]:
    loaded: StableDiffusionPipeline = StableDiffusionPipeline.from_pretrained(SHAPES, dtype=torch.float32)
    for style in STYLES:
        loaded.load_lora_weights(LORAS, weight_name=f"{style}.safetensors", adapter_name=style)
    yield loaded


@pytest.fixture(scope="module")
def without() -> list[Image.Image]:
    plain = StableDiffusionPipeline.from_pretrained(SHAPES, dtype=torch.float32)
    return paint_at(plain, {}, SCENES)


def test_an_example_for_each_style_is_small_and_named_as_diffusers_names_them() -> None:
    assert STYLES == ["small", "striped"]
    for style in STYLES:
        path = LORAS / f"{style}.safetensors"
        assert path.stat().st_size <= 300_000
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        assert all(name.startswith("unet.") for name in names)
        assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)


@pytest.mark.parametrize("style", STYLES)
def test_pictures_have_more_of_the_style_the_stronger_the_lora_is(
    style: str, pipeline: StableDiffusionPipeline, without: list[Image.Image]
) -> None:
    rows = {scale: paint_at(pipeline, {style: scale}, SCENES) for scale in (0.0, 0.5, 1.0)}
    assert [image.tobytes() for image in rows[0.0]] == [image.tobytes() for image in without]
    none, half, whole = (figures_of(style, scale, SCENES, row) for scale, row in rows.items())
    assert none.style + 0.03 < half.style < whole.style - 0.03
    assert whole.style > none.style + 0.15
    assert score(SCENES, rows[0.0]).all >= 0.9
    assert whole.obeyed.background >= 0.9
    assert min(whole.obeyed.colour, whole.obeyed.place) >= 0.7


def test_the_scenes_are_the_same_each_time_and_half_of_them_are_of_one_thing() -> None:
    assert scenes_to_paint(24)[:8] == SCENES
    assert [scene.kind for scene in SCENES] == ["one", "relation", "one", "count"] * 2


def test_a_sheet_has_a_row_for_each_row() -> None:
    red, blue = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    sheet = sheet_of([[red, blue], [blue]])
    assert sheet.size == (128, 128)
    corners = [sheet.getpixel((x, y)) for y in (0, 64) for x in (0, 64)]
    assert corners == [(255, 0, 0), (0, 0, 255), (0, 0, 255), (0, 0, 0)]


def test_every_style_has_a_figure() -> None:
    assert set(STYLES) <= set(FIGURES)
