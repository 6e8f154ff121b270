from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.tiny.families import FAMILIES, UNLOADABLE_FAMILIES
from tests.tiny.family import Family

VISIBLE = 1 / 255
"""A difference that a PNG shows."""
PROMPT = "a red circle left of a blue square"


@dataclass(frozen=True, slots=True)
class Tiny:
    """A family's pipeline, and its pictures of two steps as floats from 0 to 1, [height, width, 3 or 4]."""

    family: Family
    pipe: DiffusionPipeline

    def paint(self, prompt: str = PROMPT, *, seed: int = 0, **others: Any) -> np.ndarray:
        given: dict[str, Any] = dict(self.family.arguments)
        if self.family.guidance is not None:
            given[self.family.guidance] = 4.0
        if self.family.negative_prompt:
            given["negative_prompt"] = "blurry low quality"
        # By name: FLUX.2's first argument is an image.
        given |= {
            "prompt": prompt,
            "height": self.family.height,
            "width": self.family.width,
            "num_inference_steps": 2,
        }
        self.pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(seed)
        result = self.pipe(generator=generator, output_type="np", **{**given, **others})
        # By place: Kandinsky 5 calls its pictures `image`, the others `images`.
        return np.asarray(result[0][0])


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    family = FAMILIES[request.param]
    return Tiny(family, family.build())


def test_a_family_is_of_the_class_it_is_named_after(tiny: Tiny) -> None:
    assert type(tiny.pipe).__name__ == tiny.family.class_name


def test_a_picture_has_the_familys_size_and_is_neither_flat_nor_clipped(tiny: Tiny) -> None:
    picture = tiny.paint()
    assert picture.shape[:2] == (tiny.family.height, tiny.family.width)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.05
    assert ((picture == 0) | (picture == 1)).mean() < 0.5


def test_a_picture_follows_from_its_prompt_and_its_seed(tiny: Tiny) -> None:
    picture = tiny.paint()
    assert np.array_equal(tiny.paint(), picture)
    assert largest_difference(tiny.paint("a cat"), picture) > VISIBLE
    assert largest_difference(tiny.paint(seed=1), picture) > VISIBLE


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.guidance is not None])
def test_guidance_shows_in_the_picture(name: str) -> None:
    tiny = Tiny(FAMILIES[name], FAMILIES[name].build())
    assert tiny.family.guidance is not None
    weak, strong = (tiny.paint(**{tiny.family.guidance: guidance}) for guidance in (1.5, 4.0))
    assert largest_difference(weak, strong) > VISIBLE


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.negative_prompt])
def test_a_negative_prompt_shows_in_the_picture(name: str) -> None:
    tiny = Tiny(FAMILIES[name], FAMILIES[name].build())
    assert largest_difference(tiny.paint(), tiny.paint(negative_prompt="a house and the sea")) > VISIBLE


def test_a_saved_pipeline_paints_the_same_bytes_and_is_made_of_library_parts_alone(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.pipe.save_pretrained(tmp_path)
    loaded = Tiny(tiny.family, type(tiny.pipe).from_pretrained(tmp_path))
    assert np.array_equal(loaded.paint(), tiny.paint())
    index = json.loads((tmp_path / "model_index.json").read_text())
    libraries = {value[0] for value in index.values() if isinstance(value, list) and len(value) == 2}
    # A part that only one of diffusers' pipelines has is named by that pipeline's module.
    assert {name for name in libraries - {None} if not hasattr(diffusers.pipelines, name)} <= {
        "diffusers",
        "transformers",
    }
    # Neither code nor pickled weights.
    assert not {file.suffix for file in tmp_path.rglob("*")} & {".bin", ".ckpt", ".pkl", ".pt", ".py"}


@pytest.mark.parametrize("name", UNLOADABLE_FAMILIES)
def test_a_family_said_to_be_unloadable_paints_and_cannot_be_loaded(name: str, tmp_path: Path) -> None:
    tiny = Tiny(UNLOADABLE_FAMILIES[name], UNLOADABLE_FAMILIES[name].build())
    assert tiny.paint().std() > 0.05
    assert largest_difference(tiny.paint(), tiny.paint("a cat")) > VISIBLE
    tiny.pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`diffusers` has no class"):
        type(tiny.pipe).from_pretrained(tmp_path)


def test_a_family_built_again_paints_the_same_bytes_and_leaves_torchs_random_state(tiny: Tiny) -> None:
    before = torch.get_rng_state()
    again = Tiny(tiny.family, tiny.family.build())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(again.paint(), tiny.paint())


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [(name, scheduler) for name, family in FAMILIES.items() for scheduler in family.schedulers],
)
def test_a_family_takes_the_schedulers_it_names(name: str, scheduler: str) -> None:
    tiny = Tiny(FAMILIES[name], FAMILIES[name].build())
    own = tiny.paint()
    tiny.pipe.scheduler = getattr(diffusers, scheduler).from_config(tiny.pipe.scheduler.config)
    picture = tiny.paint()
    assert np.isfinite(picture).all()
    assert picture.shape == own.shape
